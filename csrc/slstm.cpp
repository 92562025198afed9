// The operator torch.ops.seqmem.slstm_sequence and its backward operator: checks, and the loops run by several threads.
// seqmem/ops/compiled_sequence.py registers the gradient.
#include "slstm.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <string>
#include <tuple>
#include <vector>

#include "checks.h"
#include "denormals.h"
#include "kernels.h"
#include "row_groups.h"

namespace seqmem {

namespace baseline {
SlstmTable slstm_table();
}
#if defined(__x86_64__) && !defined(__clang__)
namespace avx2 {
SlstmTable slstm_table();
}
namespace avx512 {
SlstmTable slstm_table();
}
#endif

namespace {

using at::Tensor;
using State = std::array<Tensor, kSlstmParts>;

const char* const kPartNames[] = {"hidden", "memory", "normalizer", "stabilizer"};

const SlstmTable& slstm_kernels() {
  static const SlstmTable selected = [] {
#if defined(__x86_64__) && !defined(__clang__)
    const std::string instruction_set = kernels().instruction_set;
    if (instruction_set == "avx512") return avx512::slstm_table();
    if (instruction_set == "avx2") return avx2::slstm_table();
#endif
    return baseline::slstm_table();
  }();
  return selected;
}

template <typename T>
const SlstmKernels<T>& kernels_of() {
  if constexpr (std::is_same_v<T, float>) {
    return slstm_kernels().f32;
  } else {
    return slstm_kernels().f64;
  }
}

// From this size on, results leave the caches before they are read: use non-temporal stores.
constexpr size_t kStreamedBytes = size_t(1) << 24;

bool is_aligned(const Tensor& tensor) { return reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 64 == 0; }

// Rows of (step, batch) that backward holds at a time: enough for efficient products for the weights' gradients, few enough to
// stay in the L2 cache.
constexpr int64_t kChunkRows = 208;

struct Arguments {
  const char* name;
  Tensor projected;
  State state;
  OptionalTensor lengths;
  Tensor weight;
  int64_t chunk_steps;  // 0 without gradients

  int64_t batch() const { return projected.size(0); }
  int64_t steps() const { return projected.size(1); }
  int64_t heads() const { return weight.size(0); }
  int64_t size() const { return weight.size(2); }
  int64_t units() const { return heads() * size(); }
  bool empty() const { return batch() == 0 || steps() == 0 || units() == 0; }
  bool saves() const { return chunk_steps > 0; }
  std::array<int64_t, 4> saved_sizes() const {
    return {saves() ? steps() : 0, heads(), batch(), kSlstmSaved * round_up(size(), kMaxLanes)};
  }
  std::array<int64_t, 4> checkpoint_sizes() const {
    const int64_t intervals = (steps() + kSlstmInterval - 1) / kSlstmInterval;
    return {saves() ? intervals : 0, heads(), batch(), 2 * round_up(size(), kMaxLanes)};
  }
};

void check(Arguments& a) {
  const char* const name = a.name;
  for (const Tensor* tensor : {&a.projected, &a.weight}) check_sizes(name, *tensor);
  TORCH_CHECK_VALUE(a.projected.dim() == 3, name, ": projected: got shape ", a.projected.sizes(), ", expected (B, T, 4H)");
  check_floating(name, "projected", a.projected);
  TORCH_CHECK_VALUE(
      a.weight.dim() == 3 && a.weight.size(1) == kSlstmGates * a.size(), name, ": weight_hh: got shape ", a.weight.sizes(),
      ", expected (K, 4H/K, H/K)");
  check_tensor(name, "weight_hh", a.weight, a.projected, a.weight.sizes());
  check_tensor(name, "projected", a.projected, a.projected, {a.batch(), a.steps(), kSlstmGates * a.units()});
  for (int part = 0; part < kSlstmParts; ++part) {
    check_tensor(name, kPartNames[part], a.state[part], a.projected, {a.batch(), a.units()});
    a.state[part] = a.state[part].contiguous();
  }
  check_lengths(name, a.lengths, a.batch(), a.steps());
  a.projected = a.projected.contiguous();
  a.weight = a.weight.contiguous();
}

template <typename T>
Slstm<T> kernel_arguments(const Arguments& a) {
  Slstm<T> s{};
  s.steps = a.steps();
  s.batch = a.batch();
  s.heads = a.heads();
  s.size = a.size();
  s.lengths = optional_data<int64_t>(a.lengths);
  s.projected = const_data<T>(a.projected);
  for (int part = 0; part < kSlstmParts; ++part) s.before[part] = const_data<T>(a.state[part]);
  s.weight = const_data<T>(a.weight);
  return s;
}

// Groups of one block of rows, while the packed weights of a head stay in the L2 cache: at many lengths all rows of a step of
// `projected` fall into a few sets of the caches, from where more rows than a block's push the prefetched ones out.
constexpr int64_t kCachedWeights = 1 << 18;

template <typename T>
RowGroups row_groups(const Slstm<T>& s) {
  const int64_t block = kernels_of<T>().block_rows, weights = kSlstmGates * s.size * s.size * int64_t(sizeof(T));
  return RowGroups(s.batch, weights <= kCachedWeights ? block : 4 * block);
}

template <typename T>
Tensor pack_weights(Slstm<T>& s, bool backward, const at::TensorOptions& options) {
  const SlstmKernels<T>& kernels = kernels_of<T>();
  const Tensor storage = at::empty({s.heads * kSlstmGates * s.size * round_up(s.size, 2 * kernels.lanes)}, options);
  s.packed = mutable_data<T>(storage);
  parallel_for(0, s.heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t head = begin; head < end; ++head) kernels.pack(s, backward, head);
  });
  return storage;
}

struct Results {
  Tensor outputs;
  State state;
  Tensor saved, checkpoints;
};

template <typename T>
void run_forward(const Arguments& a, const Results& results) {
  const SlstmKernels<T>& kernels = kernels_of<T>();
  Slstm<T> s = kernel_arguments<T>(a);
  s.streams = results.outputs.nbytes() + results.saved.nbytes() >= kStreamedBytes && is_aligned(results.outputs) &&
              is_aligned(results.saved);
  s.outputs = mutable_data<T>(results.outputs);
  for (int part = 0; part < kSlstmParts; ++part) s.after[part] = mutable_data<T>(results.state[part]);
  s.saved = a.saves() ? mutable_data<T>(results.saved) : nullptr;
  s.checkpoints = mutable_data<T>(results.checkpoints);
  const Tensor weights = pack_weights<T>(s, false, a.projected.options());
  const RowGroups groups = row_groups(s);
  const int64_t size = kernels.workspace(s, groups.max_rows(), false);
  const Tensor workspace = at::empty({at::get_num_threads(), size}, a.projected.options());
  T* const workspace_data = mutable_data<T>(workspace);
  parallel_for(0, groups.count * s.heads, 1, [&](int64_t begin, int64_t end) {
    T* const own = workspace_data + at::get_thread_num() * size;
    for (int64_t k = begin; k < end; ++k) {
      kernels.forward(s, k % s.heads, groups.first_row(k / s.heads), groups.rows(k / s.heads), own);
    }
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> slstm_sequence(
    const Tensor& projected, const Tensor& hidden, const Tensor& memory, const Tensor& normalizer, const Tensor& stabilizer,
    const OptionalTensor& lengths, const Tensor& weight_hh, int64_t chunk_steps) {
  Arguments a{
      "seqmem::slstm_sequence", projected, {hidden, memory, normalizer, stabilizer}, lengths, weight_hh, chunk_steps};
  check(a);
  const at::AutoDispatchBelowADInplaceOrView guard;
  const auto options = a.projected.options();
  Results r;
  r.outputs = empty_large({a.batch(), a.steps(), a.units()}, options);
  r.saved = empty_large(a.saved_sizes(), options);
  r.checkpoints = at::empty(a.checkpoint_sizes(), options);
  for (int part = 0; part < kSlstmParts; ++part) {
    r.state[part] = a.empty() ? a.state[part].clone() : at::empty_like(a.state[part]);
  }
  if (!a.empty()) a.projected.scalar_type() == at::kFloat ? run_forward<float>(a, r) : run_forward<double>(a, r);
  // Rows without steps are copies.
  for (Tensor& part : r.state) part = flushed(part);
  return {r.outputs, r.state[0], r.state[1], r.state[2], r.state[3], r.saved, r.checkpoints};
}

// Gradients of the results; absent for zero.
struct OutputGradients {
  OptionalTensor outputs;
  std::array<OptionalTensor, kSlstmParts> state;
};

struct Gradients {
  Tensor projected;
  State state;
  Tensor weight;
};

template <typename T>
void run_backward(const Arguments& a, const Results& results, const OutputGradients& grads, Gradients& g) {
  const SlstmKernels<T>& kernels = kernels_of<T>();
  const auto options = a.projected.options();
  Slstm<T> s = kernel_arguments<T>(a);
  s.outputs = mutable_data<T>(results.outputs);
  s.saved = mutable_data<T>(results.saved);
  s.checkpoints = mutable_data<T>(results.checkpoints);
  s.grad_outputs = optional_data<T>(grads.outputs);
  for (int part = 0; part < kSlstmParts; ++part) {
    s.grad_after[part] = optional_data<T>(grads.state[part]);
    s.grad_before[part] = mutable_data<T>(g.state[part]);
  }
  s.grad_projected = g.projected.dim() == 3 ? mutable_data<T>(g.projected) : nullptr;
  s.streams = g.projected.nbytes() >= kStreamedBytes && is_aligned(g.projected);
  const Tensor weights = pack_weights<T>(s, true, options);
  const RowGroups groups = row_groups(s);
  s.chunk_steps = kSlstmInterval * std::max<int64_t>(1, kChunkRows / groups.max_rows() / kSlstmInterval);
  const int64_t size = kernels.workspace(s, groups.max_rows(), true), threads = at::get_num_threads();
  const int64_t columns = 2 * kernels.lanes, panels = (s.size + columns - 1) / columns;
  const int64_t gradient_size = kSlstmGates * panels * s.size * columns;
  const Tensor workspace = empty_large({threads, size}, options);
  const Tensor weight_grads = at::zeros({threads, s.heads * gradient_size}, options);
  T* const workspace_data = mutable_data<T>(workspace);
  T* const weight_grads_data = mutable_data<T>(weight_grads);
  parallel_for(0, groups.count * s.heads, 1, [&](int64_t begin, int64_t end) {
    const int64_t thread = at::get_thread_num();
    for (int64_t k = begin; k < end; ++k) {
      const int64_t head = k % s.heads, group = k / s.heads;
      kernels.backward(
          s, head, groups.first_row(group), groups.rows(group), workspace_data + thread * size,
          weight_grads_data + (thread * s.heads + head) * gradient_size);
    }
  });
  g.weight = flushed(weight_grads.sum(0)
                         .view({s.heads, kSlstmGates, panels, s.size, columns})
                         .transpose(3, 4)
                         .reshape({s.heads, kSlstmGates, panels * columns, s.size})
                         .narrow(2, 0, s.size)
                         .reshape({s.heads, kSlstmGates * s.size, s.size}));
}

std::vector<Tensor> slstm_sequence_backward(
    const OptionalTensor& grad_outputs, const OptionalTensor& grad_hidden, const OptionalTensor& grad_memory,
    const OptionalTensor& grad_normalizer, const OptionalTensor& grad_stabilizer, const Tensor& outputs, const Tensor& saved,
    const Tensor& checkpoints, const Tensor& projected, const Tensor& hidden, const Tensor& memory, const Tensor& normalizer,
    const Tensor& stabilizer, const OptionalTensor& lengths, const Tensor& weight_hh, int64_t chunk_steps,
    bool input_gradient) {
  Arguments a{
      "seqmem::slstm_sequence_backward", projected, {hidden, memory, normalizer, stabilizer}, lengths, weight_hh, chunk_steps};
  check(a);
  const at::AutoDispatchBelowADInplaceOrView guard;
  TORCH_CHECK_VALUE(
      a.chunk_steps > 0, a.name, ": chunk_steps: got ", a.chunk_steps, ", expected that of the forward call, above 0");
  check_tensor(a.name, "outputs", outputs, a.projected, {a.batch(), a.steps(), a.units()});
  check_tensor(a.name, "saved", saved, a.projected, a.saved_sizes());
  check_tensor(a.name, "checkpoints", checkpoints, a.projected, a.checkpoint_sizes());
  const Results results{outputs.contiguous(), {}, saved.contiguous(), checkpoints.contiguous()};
  OutputGradients grads{grad_outputs, {grad_hidden, grad_memory, grad_normalizer, grad_stabilizer}};
  check_tensor(a.name, "grad_outputs", grads.outputs, a.projected, outputs.sizes());
  if (grads.outputs) grads.outputs = grads.outputs->contiguous();
  Gradients g;
  g.projected = empty_large(input_gradient ? a.projected.sizes() : at::IntArrayRef({0}), a.projected.options());
  for (int part = 0; part < kSlstmParts; ++part) {
    OptionalTensor& grad = grads.state[part];
    check_tensor(a.name, kPartNames[part], grad, a.projected, a.state[part].sizes());
    if (grad) grad = grad->contiguous();
    g.state[part] = !a.empty() ? at::empty_like(a.state[part]) : grad ? grad->clone() : at::zeros_like(a.state[part]);
  }
  if (a.empty()) {
    g.weight = at::zeros_like(a.weight);
  } else {
    const bool is_float = a.projected.scalar_type() == at::kFloat;
    is_float ? run_backward<float>(a, results, grads, g) : run_backward<double>(a, results, grads, g);
  }
  std::vector<Tensor> all{g.projected};
  for (const Tensor& part : g.state) all.push_back(flushed(part));
  all.push_back(g.weight);
  return all;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(seqmem, library) {
  const std::string arguments =
      "Tensor projected, Tensor hidden, Tensor memory, Tensor normalizer, Tensor stabilizer, Tensor? lengths, "
      "Tensor weight_hh, int chunk_steps";
  library.def(("slstm_sequence(" + arguments +
               ") -> (Tensor outputs, Tensor hidden_after, Tensor memory_after, Tensor normalizer_after, "
               "Tensor stabilizer_after, Tensor saved, Tensor checkpoints)")
                  .c_str());
  library.def(("slstm_sequence_backward(Tensor? grad_outputs, Tensor? grad_hidden, Tensor? grad_memory, "
               "Tensor? grad_normalizer, Tensor? grad_stabilizer, Tensor outputs, Tensor saved, Tensor checkpoints, " +
               arguments + ", bool input_gradient) -> Tensor[]")
                  .c_str());
}

TORCH_LIBRARY_IMPL(seqmem, CPU, library) {
  library.impl("slstm_sequence", slstm_sequence);
  library.impl("slstm_sequence_backward", slstm_sequence_backward);
}

}  // namespace seqmem
