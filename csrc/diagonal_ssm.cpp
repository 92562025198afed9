// The operator torch.ops.seqmem.diagonal_ssm and its backward operator: checks, coefficients with one vector of channels for
// each mode, and the loops run by several threads. seqmem/ops/compiled_sequence.py registers the gradient.
#include "diagonal_ssm.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "checks.h"
#include "denormals.h"
#include "kernels.h"
#include "row_groups.h"
#include "step_rows.h"

namespace seqmem {

namespace baseline {
DiagonalSSMTable diagonal_ssm_table();
}
#if defined(__x86_64__) && !defined(__clang__)
namespace avx2 {
DiagonalSSMTable diagonal_ssm_table();
}
namespace avx512 {
DiagonalSSMTable diagonal_ssm_table();
}
#endif

namespace {

using at::Tensor;

// Steps of a chunk without gradients, and the number of tasks that the channels and groups of rows make in backward. Both are
// independent of the number of threads, so that sums are too.
constexpr int64_t kChunkSteps = 64;
constexpr int64_t kTasks = 32;

const DiagonalSSMTable& diagonal_ssm_kernels() {
  static const DiagonalSSMTable selected = [] {
#if defined(__x86_64__) && !defined(__clang__)
    const std::string instruction_set = kernels().instruction_set;
    if (instruction_set == "avx512") return avx512::diagonal_ssm_table();
    if (instruction_set == "avx2") return avx2::diagonal_ssm_table();
#endif
    return baseline::diagonal_ssm_table();
  }();
  return selected;
}

template <typename T>
const DiagonalSSMKernels<T>& kernels_of() {
  if constexpr (std::is_same_v<T, float>) {
    return diagonal_ssm_kernels().f32;
  } else {
    return diagonal_ssm_kernels().f64;
  }
}

struct Arguments {
  const char* name;
  Tensor inputs, a;
  OptionalTensor b;
  Tensor c;
  OptionalTensor skip, initial, lengths;
  bool reverse;
  int64_t chunk_steps;  // 0 without gradients

  int64_t batch() const { return inputs.size(0); }
  int64_t steps() const { return inputs.size(1); }
  int64_t channels() const { return inputs.size(2); }
  int64_t modes() const { return a.size(1); }
  int64_t padded() const { return round_up(channels(), kMaxLanes); }
  int64_t chunk() const {
    const int64_t steps_of_chunk = chunk_steps > 0 ? chunk_steps : kChunkSteps;
    return std::max<int64_t>(1, std::min(steps_of_chunk, steps()));
  }
  std::vector<int64_t> state_sizes() const { return {batch(), channels(), modes(), 2}; }
  std::vector<int64_t> saved_sizes() const {
    return {batch(), chunk_steps > 0 ? (steps() + chunk() - 1) / chunk() : 0, modes(), 2, padded()};
  }
};

void check(Arguments& a) {
  const char* const name = a.name;
  TORCH_CHECK_VALUE(a.inputs.dim() == 3, name, ": inputs: got shape ", a.inputs.sizes(), ", expected (B, T, H)");
  TORCH_CHECK_VALUE(a.a.dim() == 3, name, ": a: got shape ", a.a.sizes(), ", expected (H, M, 2)");
  check_floating(name, "inputs", a.inputs);
  check_sizes(name, a.inputs);
  check_sizes(name, a.a);
  const std::vector<int64_t> sizes{a.channels(), a.modes(), 2};
  check_tensor(name, "a", a.a, a.inputs, sizes);
  check_tensor(name, "b", a.b, a.inputs, sizes);
  check_tensor(name, "c", a.c, a.inputs, sizes);
  check_tensor(name, "skip", a.skip, a.inputs, {a.channels()});
  check_tensor(name, "initial", a.initial, a.inputs, a.state_sizes());
  check_lengths(name, a.lengths, a.batch(), a.steps());
  a.inputs = a.inputs.contiguous();
  a.initial = contiguous(a.initial);
}

// Converts (H, M, 2) to (M, 2, padded), with zeros in the padding.
Tensor packed(const Tensor& coefficients, int64_t padded) {
  const Tensor result = at::zeros({coefficients.size(1), 2, padded}, coefficients.options());
  result.narrow(2, 0, coefficients.size(0)).copy_(coefficients.permute({1, 2, 0}));
  return result;
}

struct Results {
  Tensor outputs, final, saved;
};

// Coefficients in the layout of the kernels; owns the tensors.
struct Coefficients {
  Tensor a, c;
  OptionalTensor b, skip;

  explicit Coefficients(const Arguments& given) : a(packed(given.a, given.padded())), c(packed(given.c, given.padded())) {
    if (given.b) b = packed(*given.b, given.padded());
    if (!given.skip) return;
    skip = at::zeros({given.padded()}, given.a.options());
    skip->narrow(0, 0, given.channels()).copy_(*given.skip);
  }
};

template <typename T>
DiagonalSSM<T> kernel_arguments(const Arguments& a, const Coefficients& coefficients) {
  DiagonalSSM<T> s{};
  s.batch = a.batch();
  s.steps = a.steps();
  s.channels = a.channels();
  s.modes = a.modes();
  s.padded = a.padded();
  s.chunk_steps = a.chunk();
  s.reverse = a.reverse;
  s.lengths = optional_data<int64_t>(a.lengths);
  s.inputs = const_data<T>(a.inputs);
  s.a = const_data<T>(coefficients.a);
  s.b = optional_data<T>(coefficients.b);
  s.c = const_data<T>(coefficients.c);
  s.skip = optional_data<T>(coefficients.skip);
  s.initial = optional_data<T>(a.initial);
  return s;
}

template <typename T>
void run_forward(const Arguments& a, const Results& results) {
  const DiagonalSSMKernels<T>& kernels = kernels_of<T>();
  const Coefficients coefficients(a);
  DiagonalSSM<T> s = kernel_arguments<T>(a, coefficients);
  s.outputs = mutable_data<T>(results.outputs);
  s.final = mutable_data<T>(results.final);
  s.saved = a.chunk_steps > 0 ? mutable_data<T>(results.saved) : nullptr;
  const int64_t blocks = s.padded / kernels.lanes, size = kernels.workspace(s, false);
  parallel_for(0, s.batch * blocks, 1, [&](int64_t begin, int64_t end) {
    const Tensor workspace = at::empty({size}, a.inputs.options());
    for (int64_t task = begin; task < end; ++task) {
      kernels.forward(s, task / blocks, task % blocks, mutable_data<T>(workspace));
    }
  });
}

std::tuple<Tensor, Tensor, Tensor> diagonal_ssm(
    const Tensor& inputs, const Tensor& a, const OptionalTensor& b, const Tensor& c, const OptionalTensor& skip,
    const OptionalTensor& initial, const OptionalTensor& lengths, bool reverse, int64_t chunk_steps) {
  Arguments given{"seqmem::diagonal_ssm", inputs, a, b, c, skip, initial, lengths, reverse, chunk_steps};
  check(given);
  const at::AutoDispatchBelowADInplaceOrView guard;
  const auto options = given.inputs.options();
  const Results results{
      empty_large(given.inputs.sizes(), options), at::empty(given.state_sizes(), options),
      empty_large(given.saved_sizes(), options)};
  inputs.scalar_type() == at::kFloat ? run_forward<float>(given, results) : run_forward<double>(given, results);
  return {results.outputs, flushed(results.final), results.saved};
}

struct Gradients {
  Tensor inputs, a, b, c, skip, initial;
};

// Sums over the rows of each group, (groups, M, 2, padded) and (groups, padded).
struct GroupSums {
  Tensor a, b, c, skip;

  GroupSums(const Arguments& given, int64_t groups, bool driven) {
    const auto options = given.inputs.options();
    const std::vector<int64_t> sizes{groups, given.modes(), 2, given.padded()};
    a = at::zeros(sizes, options);
    c = at::zeros(sizes, options);
    skip = at::zeros({groups, given.padded()}, options);
    if (driven) b = at::zeros(sizes, options);
  }
};

// Adds the groups in order, and converts to (H, M, 2).
Tensor unpacked(const Tensor& sums, int64_t channels) {
  Tensor total = sums[0].clone();
  for (int64_t group = 1; group < sums.size(0); ++group) total.add_(sums[group]);
  return total.narrow(2, 0, channels).permute({2, 0, 1}).contiguous();
}

template <typename T>
void multiply_by_conjugate(const Tensor& target, const Tensor& factor) {
  const Tensor factors = factor.contiguous();
  T* const to = mutable_data<T>(target);
  const T* const from = const_data<T>(factors);
  for (int64_t k = 0; k < target.numel(); k += 2) {
    const T re = to[k], im = to[k + 1];
    to[k] = re * from[k] + im * from[k + 1];
    to[k + 1] = im * from[k] - re * from[k + 1];
  }
}

template <typename T>
void run_backward(
    const Arguments& a, const Tensor& saved, const OptionalTensor& grad_outputs, const OptionalTensor& grad_final,
    Gradients& g) {
  const DiagonalSSMKernels<T>& kernels = kernels_of<T>();
  const Coefficients coefficients(a);
  DiagonalSSM<T> s = kernel_arguments<T>(a, coefficients);
  s.saved = const_cast<T*>(const_data<T>(saved));
  s.grad_outputs = optional_data<T>(grad_outputs);
  s.grad_final = optional_data<T>(grad_final);
  s.grad_inputs = g.inputs.dim() == 3 ? mutable_data<T>(g.inputs) : nullptr;
  s.grad_initial = a.initial ? mutable_data<T>(g.initial) : nullptr;
  const int64_t blocks = (s.channels + kernels.lanes - 1) / kernels.lanes, size = kernels.workspace(s, true);
  const int64_t channel_tasks = s.padded / kMaxLanes;  // for every instruction set the same groups
  const int64_t groups = std::max<int64_t>(1, std::min(s.batch, kTasks / std::max<int64_t>(1, channel_tasks)));
  const GroupSums sums(a, groups, s.b != nullptr);
  parallel_for(0, groups * blocks, 1, [&](int64_t begin, int64_t end) {
    const Tensor workspace = at::empty({size}, a.inputs.options());
    for (int64_t task = begin; task < end; ++task) {
      const int64_t group = task / blocks, offset = group * s.state_size();
      const DiagonalSSMGradients<T> own{
          mutable_data<T>(sums.a) + offset, s.b == nullptr ? nullptr : mutable_data<T>(sums.b) + offset,
          mutable_data<T>(sums.c) + offset, mutable_data<T>(sums.skip) + group * s.padded};
      for (int64_t row = group * s.batch / groups; row < (group + 1) * s.batch / groups; ++row) {
        kernels.backward(s, row, task % blocks, own, mutable_data<T>(workspace));
      }
    }
  });
  [[maybe_unused]] const FlushDenormals flush;
  g.a = unpacked(sums.a, s.channels);
  g.c = unpacked(sums.c, s.channels);
  if (s.is_unit()) multiply_by_conjugate<T>(g.a, a.c);
  if (s.b != nullptr) g.b = unpacked(sums.b, s.channels);
  if (a.skip) g.skip = unpacked(sums.skip.unsqueeze(1).unsqueeze(1), s.channels).flatten();
}

std::vector<Tensor> diagonal_ssm_backward(
    const OptionalTensor& grad_outputs, const OptionalTensor& grad_final, const Tensor& saved, const Tensor& inputs,
    const Tensor& a, const OptionalTensor& b, const Tensor& c, const OptionalTensor& skip, const OptionalTensor& initial,
    const OptionalTensor& lengths, bool reverse, int64_t chunk_steps, bool input_gradient) {
  Arguments given{"seqmem::diagonal_ssm_backward", inputs, a, b, c, skip, initial, lengths, reverse, chunk_steps};
  check(given);
  const at::AutoDispatchBelowADInplaceOrView guard;
  TORCH_CHECK_VALUE(
      chunk_steps > 0, given.name, ": chunk_steps: got ", chunk_steps, ", expected that of the forward call, above 0");
  check_tensor(given.name, "saved", saved, given.inputs, given.saved_sizes());
  check_tensor(given.name, "grad_outputs", grad_outputs, given.inputs, given.inputs.sizes());
  check_tensor(given.name, "grad_final", grad_final, given.inputs, given.state_sizes());
  const auto options = given.inputs.options();
  const auto none = [&] { return at::empty({0}, options); };
  Gradients g{none(), none(), none(), none(), none(), none()};
  if (input_gradient) g.inputs = empty_large(given.inputs.sizes(), options);
  if (initial) g.initial = at::empty(given.state_sizes(), options);
  const OptionalTensor outer = contiguous(grad_outputs), last = contiguous(grad_final);
  const Tensor states = saved.contiguous();
  inputs.scalar_type() == at::kFloat ? run_backward<float>(given, states, outer, last, g)
                                     : run_backward<double>(given, states, outer, last, g);
  return {g.inputs, flushed(g.a), flushed(g.b), flushed(g.c), flushed(g.skip), flushed(g.initial)};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(seqmem, library) {
  const std::string arguments =
      "Tensor inputs, Tensor a, Tensor? b, Tensor c, Tensor? skip, Tensor? initial, Tensor? lengths, bool reverse, "
      "int chunk_steps";
  library.def(("diagonal_ssm(" + arguments + ") -> (Tensor outputs, Tensor final, Tensor saved)").c_str());
  library.def(
      ("diagonal_ssm_backward(Tensor? grad_outputs, Tensor? grad_final, Tensor saved, " + arguments +
       ", bool input_gradient) -> Tensor[]")
          .c_str());
}

TORCH_LIBRARY_IMPL(seqmem, CPU, library) {
  library.impl("diagonal_ssm", diagonal_ssm);
  library.impl("diagonal_ssm_backward", diagonal_ssm_backward);
}

}  // namespace seqmem
