// The operator torch.ops.seqmem.selective_scan and its backward operator: checks, and the loops run by several threads.
// seqmem/ops/selective_scan.py registers the gradient.
#include "selective_scan.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

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
SelectiveScanTable selective_scan_table();
}
#if defined(__x86_64__) && !defined(__clang__)
namespace avx2 {
SelectiveScanTable selective_scan_table();
}
namespace avx512 {
SelectiveScanTable selective_scan_table();
}
#endif

namespace {

using at::Tensor;

const SelectiveScanTable& selective_scan_kernels() {
  static const SelectiveScanTable selected = [] {
#if defined(__x86_64__) && !defined(__clang__)
    const std::string instruction_set = kernels().instruction_set;
    if (instruction_set == "avx512") return avx512::selective_scan_table();
    if (instruction_set == "avx2") return avx2::selective_scan_table();
#endif
    return baseline::selective_scan_table();
  }();
  return selected;
}

template <typename T>
const SelectiveScanKernels<T>& kernels_of() {
  if constexpr (std::is_same_v<T, float>) {
    return selective_scan_kernels().f32;
  } else {
    return selective_scan_kernels().f64;
  }
}

constexpr int64_t kMaxChunkSteps = 1024, kForwardChunkSteps = 64;

struct Arguments {
  const char* name;
  Tensor inputs, delta, a, b, c;
  OptionalTensor skip, gate, delta_bias, initial, lengths;
  bool softplus;
  int64_t chunk_steps;  // steps that backward processes at a time; 0 without gradients

  int64_t batch() const { return inputs.size(0); }
  int64_t steps() const { return inputs.size(1); }
  int64_t channels() const { return inputs.size(2); }
  int64_t states() const { return a.size(1); }
};

void check(Arguments& a) {
  const char* const name = a.name;
  TORCH_CHECK_VALUE(a.inputs.dim() == 3, name, ": inputs: got shape ", a.inputs.sizes(), ", expected (B, T, D)");
  TORCH_CHECK_VALUE(a.a.dim() == 2, name, ": a: got shape ", a.a.sizes(), ", expected (D, N)");
  check_floating(name, "inputs", a.inputs);
  check_sizes(name, a.inputs);
  check_sizes(name, a.a);
  const int64_t batch = a.batch(), steps = a.steps(), channels = a.channels(), states = a.states();
  check_tensor(name, "inputs", a.inputs, a.inputs, a.inputs.sizes());
  check_tensor(name, "delta", a.delta, a.inputs, a.inputs.sizes());
  check_tensor(name, "a", a.a, a.inputs, {channels, states});
  check_tensor(name, "b", a.b, a.inputs, {batch, steps, states});
  check_tensor(name, "c", a.c, a.inputs, {batch, steps, states});
  check_tensor(name, "skip", a.skip, a.inputs, {channels});
  check_tensor(name, "gate", a.gate, a.inputs, a.inputs.sizes());
  check_tensor(name, "delta_bias", a.delta_bias, a.inputs, {channels});
  check_tensor(name, "initial", a.initial, a.inputs, {batch, channels, states});
  check_lengths(name, a.lengths, batch, steps);
  TORCH_CHECK_VALUE(
      a.chunk_steps >= 0 && a.chunk_steps <= kMaxChunkSteps, name, ": chunk_steps: got ", a.chunk_steps, ", expected 0 to ",
      kMaxChunkSteps);
  for (Tensor* tensor : {&a.inputs, &a.delta, &a.b, &a.c}) *tensor = with_contiguous_rows(*tensor);
  a.gate = with_contiguous_rows(a.gate);
  a.a = a.a.contiguous();
  for (OptionalTensor* tensor : {&a.skip, &a.delta_bias, &a.initial}) *tensor = contiguous(*tensor);
}

template <typename T>
Steps<T> steps_of(const OptionalTensor& tensor) {
  if (!tensor) return {nullptr, 0, 0};
  return {const_data<T>(*tensor), tensor->stride(0), tensor->stride(1)};
}

// Arguments of the kernels, with the parameters in a tensor of its own: the rates, skip and delta_bias, padded with zeros.
template <typename T>
SelectiveScan<T> kernel_arguments(const Arguments& a, Tensor& parameters) {
  SelectiveScan<T> s{};
  s.batch = a.batch();
  s.steps = a.steps();
  s.channels = a.channels();
  s.states = a.states();
  s.chunk_steps = a.chunk_steps > 0 ? a.chunk_steps : kForwardChunkSteps;
  s.group_channels = kMostChannels;
  while (s.batch * s.groups() < kEnoughTasks && s.group_channels > kFewestChannels) s.group_channels /= 2;
  s.softplus = a.softplus;
  s.lengths = optional_data<int64_t>(a.lengths);
  s.inputs = steps_of<T>(a.inputs);
  s.delta = steps_of<T>(a.delta);
  s.b = steps_of<T>(a.b);
  s.c = steps_of<T>(a.c);
  s.gate = steps_of<T>(a.gate);
  s.initial = optional_data<T>(a.initial);
  const int64_t columns = s.padded_channels();
  parameters = at::zeros({s.padded_states() + 2, columns}, a.inputs.options());
  T* const rates = mutable_data<T>(parameters);
  T* const rows = rates + s.padded_states() * columns;
  constexpr double log2_e = 0x1.71547652b82fep+0;
  const T *const factors = const_data<T>(a.a), *const skip = optional_data<T>(a.skip);
  const T* const bias = optional_data<T>(a.delta_bias);
  for (int64_t d = 0; d < s.channels; ++d) {
    for (int64_t n = 0; n < s.states; ++n) rates[n * columns + d] = T(double(factors[d * s.states + n]) * log2_e);
    if (skip != nullptr) rows[d] = skip[d];
    if (bias != nullptr) rows[columns + d] = bias[d];
  }
  s.rates = rates;
  s.skip = rows;
  s.delta_bias = rows + columns;
  return s;
}

// Runs a loop for each task, a batch row and a group of channels.
template <typename T>
void run_tasks(
    const SelectiveScan<T>& s, bool backward, void (*loop)(const SelectiveScan<T>&, int64_t, int64_t, T*),
    const at::TensorOptions& options) {
  const int64_t tasks = s.batch * s.groups();
  if (tasks == 0) return;
  const int64_t size = round_up(kernels_of<T>().workspace(s, backward), kMaxLanes);
  const int64_t threads = std::min<int64_t>(tasks, at::get_num_threads());
  const Tensor workspace = at::empty({threads, size}, options);
  T* const workspace_data = mutable_data<T>(workspace);
  parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t thread = begin; thread < end; ++thread) {
      for (int64_t task = thread * tasks / threads; task < (thread + 1) * tasks / threads; ++task) {
        loop(s, task / s.groups(), task % s.groups(), workspace_data + thread * size);
      }
    }
  });
}

template <typename T>
void run_forward(const Arguments& a, const Tensor& outputs, const Tensor& state, const Tensor& saved) {
  Tensor parameters;
  SelectiveScan<T> s = kernel_arguments<T>(a, parameters);
  s.outputs = mutable_data<T>(outputs);
  s.streams = can_stream(outputs);
  s.final = mutable_data<T>(state);
  s.saved = a.chunk_steps > 0 ? mutable_data<T>(saved) : nullptr;
  run_tasks(s, false, kernels_of<T>().forward, a.inputs.options());
}

std::vector<int64_t> saved_sizes(const Arguments& a) {
  if (a.chunk_steps == 0) return {a.batch(), 0, round_up(a.states(), kStateBlock), round_up(a.channels(), kMaxLanes)};
  const int64_t chunks = (a.steps() + a.chunk_steps - 1) / a.chunk_steps;
  return {a.batch(), chunks, round_up(a.states(), kStateBlock), round_up(a.channels(), kMaxLanes)};
}

std::tuple<Tensor, Tensor, Tensor> selective_scan(
    const Tensor& inputs, const Tensor& delta, const Tensor& a, const Tensor& b, const Tensor& c, const OptionalTensor& skip,
    const OptionalTensor& gate, const OptionalTensor& delta_bias, const OptionalTensor& initial, const OptionalTensor& lengths,
    bool softplus, int64_t chunk_steps) {
  Arguments given{
      "seqmem::selective_scan", inputs, delta, a, b, c, skip, gate, delta_bias, initial, lengths, softplus, chunk_steps};
  check(given);
  const at::AutoDispatchBelowADInplaceOrView guard;
  const auto options = inputs.options();
  const Tensor outputs = empty_large(inputs.sizes(), options);
  const Tensor state = at::empty({given.batch(), given.channels(), given.states()}, options);
  const Tensor saved = empty_large(saved_sizes(given), options);
  inputs.scalar_type() == at::kFloat ? run_forward<float>(given, outputs, state, saved)
                                     : run_forward<double>(given, outputs, state, saved);
  return {outputs, flushed(state), saved};
}

// Adds up the (count, size) numbers of tasks in double precision; `target` maps a column to its place in the result.
template <typename T, typename Target>
void sum_tasks(const Tensor& parts, const Tensor& result, const Target& target) {
  const int64_t count = parts.size(0), size = parts.numel() / std::max<int64_t>(count, 1);
  const T* const from = const_data<T>(parts);
  T* const to = mutable_data<T>(result);
  parallel_for(0, size, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t column = begin; column < end; ++column) {
      const int64_t place = target(column);
      if (place < 0) continue;
      double sum = 0;
      for (int64_t k = 0; k < count; ++k) sum += double(from[k * size + column]);
      to[place] = T(sum);
    }
  });
}

// The same for a result in the order of the numbers.
template <typename T>
void sum_tasks(const Tensor& parts, const Tensor& result) {
  constexpr int64_t block = 256;
  const int64_t count = parts.size(0), size = result.numel();
  const T* const from = const_data<T>(parts);
  T* const to = mutable_data<T>(result);
  parallel_for(0, size, 16 * block, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += block) {
      const int64_t columns = std::min(block, end - first);
      double sums[block] = {};
      for (int64_t k = 0; k < count; ++k) {
        for (int64_t column = 0; column < columns; ++column) sums[column] += double(from[k * size + first + column]);
      }
      for (int64_t column = 0; column < columns; ++column) to[first + column] = T(sums[column]);
    }
  });
}

struct Gradients {
  Tensor inputs, delta, a, b, c, skip, gate, delta_bias, initial;
};

template <typename T>
void run_backward(
    const Arguments& a, const OptionalTensor& grad_outputs, const OptionalTensor& grad_state, const Tensor& saved,
    Gradients& g) {
  Tensor parameters;
  SelectiveScan<T> s = kernel_arguments<T>(a, parameters);
  const auto options = a.inputs.options();
  const int64_t columns = s.padded_channels(), groups = s.groups();
  s.saved = const_cast<T*>(const_data<T>(saved));  // read alone
  s.grad_outputs = steps_of<T>(grad_outputs);
  s.grad_final = optional_data<T>(grad_state);
  s.streams = can_stream(g.inputs) && can_stream(g.delta) && (!a.gate || can_stream(g.gate));
  s.grad_inputs = mutable_data<T>(g.inputs);
  s.grad_delta = mutable_data<T>(g.delta);
  s.grad_gate = mutable_data<T>(g.gate);
  s.grad_initial = mutable_data<T>(g.initial);
  // The sums of a single group are those over all channels.
  const std::vector<int64_t> parts{groups, s.batch, s.steps, s.states};
  const Tensor grad_b = groups == 1 ? g.b : at::empty(parts, options), grad_c = groups == 1 ? g.c : at::empty(parts, options);
  const Tensor grad_a = at::empty({s.batch, s.padded_states(), columns}, options);
  const Tensor grad_rows = at::empty({2, s.batch, columns}, options);
  s.grad_b = mutable_data<T>(grad_b);
  s.grad_c = mutable_data<T>(grad_c);
  s.grad_a = mutable_data<T>(grad_a);
  s.grad_skip = mutable_data<T>(grad_rows);
  s.grad_delta_bias = s.grad_skip + s.batch * columns;
  run_tasks(s, true, kernels_of<T>().backward, options);
  if (groups > 1) {
    sum_tasks<T>(grad_b, g.b);
    sum_tasks<T>(grad_c, g.c);
  }
  const auto channel = [&](int64_t column) { return column < s.channels ? column : -1; };
  sum_tasks<T>(grad_rows[0], g.skip, channel);
  sum_tasks<T>(grad_rows[1], g.delta_bias, channel);
  sum_tasks<T>(grad_a, g.a, [&](int64_t column) {
    const int64_t n = column / columns, d = column % columns;
    return n < s.states && d < s.channels ? d * s.states + n : -1;
  });
}

Gradients unset_gradients(const Arguments& a) {
  const auto options = a.inputs.options();
  // Without tasks the sums are zeros.
  const auto sums = [&](at::IntArrayRef sizes) {
    return a.inputs.numel() == 0 ? at::zeros(sizes, options) : at::empty(sizes, options);
  };
  Gradients g;
  g.inputs = empty_large(a.inputs.sizes(), options);
  g.delta = empty_large(a.inputs.sizes(), options);
  g.gate = empty_large(a.gate ? a.inputs.sizes() : at::IntArrayRef({0}), options);
  g.a = at::zeros(a.a.sizes(), options);
  g.b = sums(a.b.sizes());
  g.c = sums(a.c.sizes());
  g.skip = at::zeros({a.channels()}, options);
  g.delta_bias = at::zeros({a.channels()}, options);
  g.initial = at::empty({a.batch(), a.channels(), a.states()}, options);
  return g;
}

std::vector<Tensor> selective_scan_backward(
    const OptionalTensor& grad_outputs, const OptionalTensor& grad_state, const Tensor& saved, const Tensor& inputs,
    const Tensor& delta, const Tensor& a, const Tensor& b, const Tensor& c, const OptionalTensor& skip,
    const OptionalTensor& gate, const OptionalTensor& delta_bias, const OptionalTensor& initial, const OptionalTensor& lengths,
    bool softplus, int64_t chunk_steps) {
  Arguments given{
      "seqmem::selective_scan_backward",
      inputs,
      delta,
      a,
      b,
      c,
      skip,
      gate,
      delta_bias,
      initial,
      lengths,
      softplus,
      chunk_steps};
  check(given);
  const at::AutoDispatchBelowADInplaceOrView guard;
  TORCH_CHECK_VALUE(
      chunk_steps > 0, given.name, ": chunk_steps: got ", chunk_steps, ", expected that of the forward call, above 0");
  const std::vector<int64_t> state{given.batch(), given.channels(), given.states()};
  check_tensor(given.name, "saved", saved, inputs, saved_sizes(given));
  check_tensor(given.name, "grad_outputs", grad_outputs, inputs, inputs.sizes());
  check_tensor(given.name, "grad_state", grad_state, inputs, state);
  Gradients g = unset_gradients(given);
  const OptionalTensor outputs_gradient = with_contiguous_rows(grad_outputs), state_gradient = contiguous(grad_state);
  inputs.scalar_type() == at::kFloat ? run_backward<float>(given, outputs_gradient, state_gradient, saved.contiguous(), g)
                                     : run_backward<double>(given, outputs_gradient, state_gradient, saved.contiguous(), g);
  const Tensor none = at::empty({0}, inputs.options());
  return {g.inputs,
          g.delta,
          g.a,
          g.b,
          g.c,
          skip ? g.skip : none,
          g.gate,
          delta_bias ? g.delta_bias : at::empty({0}, inputs.options()),
          initial ? flushed(g.initial) : at::empty({0}, inputs.options())};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(seqmem, library) {
  const std::string arguments =
      "Tensor inputs, Tensor delta, Tensor a, Tensor b, Tensor c, Tensor? skip, Tensor? gate, Tensor? delta_bias, "
      "Tensor? initial, Tensor? lengths, bool softplus, int chunk_steps";
  library.def(("selective_scan(" + arguments + ") -> (Tensor outputs, Tensor state, Tensor saved)").c_str());
  library.def(
      ("selective_scan_backward(Tensor? grad_outputs, Tensor? grad_state, Tensor saved, " + arguments + ") -> Tensor[]")
          .c_str());
}

TORCH_LIBRARY_IMPL(seqmem, CPU, library) {
  library.impl("selective_scan", selective_scan);
  library.impl("selective_scan_backward", selective_scan_backward);
}

}  // namespace seqmem
