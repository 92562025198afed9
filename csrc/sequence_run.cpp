// Checks of a call over a whole sequence, and its time loops run by several threads.
#include "sequence_run.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <string>

#include "denormals.h"
#include "kernels.h"
#include "row_groups.h"

namespace seqmem {

namespace baseline {
SequenceTable sequence_table();
}
#if defined(__x86_64__) && !defined(__clang__)
namespace avx2 {
SequenceTable sequence_table();
}
namespace avx512 {
SequenceTable sequence_table();
}
#endif

namespace sequences {
namespace {

const SequenceTable& sequence_kernels() {
  static const SequenceTable selected = [] {
#if defined(__x86_64__) && !defined(__clang__)
    const std::string instruction_set = kernels().instruction_set;
    if (instruction_set == "avx512") return avx512::sequence_table();
    if (instruction_set == "avx2") return avx2::sequence_table();
#endif
    return baseline::sequence_table();
  }();
  return selected;
}

// From this size on, results leave the caches before backward reads them: use non-temporal stores.
constexpr size_t kStreamedBytes = size_t(1) << 24;

bool is_aligned(const Tensor& tensor) { return reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 64 == 0; }

void check(Arguments& a) {
  const char* const name = a.name;
  for (const Tensor* tensor : {&a.inputs, &a.hidden, &a.memory}) check_sizes(name, *tensor);
  TORCH_CHECK_VALUE(a.inputs.dim() == 3, name, ": inputs: got shape ", a.inputs.sizes(), ", expected (B, T, C)");
  check_floating(name, "inputs", a.inputs);
  TORCH_CHECK_VALUE(a.hidden.dim() == 2, name, ": hidden: got shape ", a.hidden.sizes(), ", expected (B, H)");
  const int64_t batch = a.batch(), size = a.size();
  check_tensor(name, "hidden", a.hidden, a.inputs, {batch, size});
  TORCH_CHECK_VALUE(
      !a.bfloat16 || a.inputs.scalar_type() == at::kFloat, name, ": bfloat16: got ", dtype_name(a.inputs.scalar_type()),
      " inputs, expected float32 inputs");
  check_lengths(name, a.lengths, batch, a.steps());
  a.chunk_steps = std::min(a.chunk_steps, std::max<int64_t>(1, a.steps()));
  if (a.has_memory()) {
    TORCH_CHECK_VALUE(a.memory.dim() == 3, name, ": memory: got shape ", a.memory.sizes(), ", expected (B, M, N)");
    const int64_t memories = a.memories(), order = a.order(), channels = a.channels();
    const int64_t rows = a.memory_gates() * size;
    check_tensor(name, "memory", a.memory, a.inputs, {batch, memories, order});
    check_tensor(name, "weight_ux", a.weight_ux, a.inputs, {memories, channels});
    check_tensor(name, "weight_uh", a.weight_uh, a.inputs, {memories, size});
    check_tensor(name, "weight_um", a.weight_um, a.inputs, {memories, order});
    check_tensor(name, "bias_u", a.bias_u, a.inputs, {memories});
    check_tensor(name, "weight_hx", a.weight[from_input], a.inputs, {rows, channels});
    check_tensor(name, "weight_hm", a.weight[from_memory], a.inputs, {rows, memories * order});
    check_tensor(name, "weight_hh", a.weight[from_hidden], a.inputs, {rows, size});
    check_tensor(name, "bias_h", a.bias, a.inputs, {rows});
    TORCH_CHECK_VALUE(
        (a.generators && a.step_sizes && !a.step && !a.drive) || (!a.generators && !a.step_sizes && a.step && a.drive), name,
        ": expected either generators and step_sizes, or step and drive");
    if (a.generators) {
      check_float64(name, "generators", *a.generators, {6, order});
      const bool per_row = a.step_sizes->dim() == 2;
      check_float64(
          name, "step_sizes", *a.step_sizes, per_row ? at::IntArrayRef({a.steps(), batch}) : at::IntArrayRef({a.steps()}));
    } else {
      check_float64(name, "step", *a.step, {order, order});
      check_float64(name, "drive", *a.drive, {order});
    }
    for (OptionalTensor* weight :
         {&a.weight_ux, &a.weight_uh, &a.weight_um, &a.bias_u, &a.step_sizes, &a.generators, &a.step, &a.drive}) {
      if (*weight) *weight = (*weight)->contiguous();
    }
  } else {
    check_tensor(name, "memory", a.memory, a.inputs, {batch, size});
  }
  for (OptionalTensor& weight : a.weight) {
    if (weight) weight = weight->contiguous();
  }
  if (a.bias) a.bias = a.bias->contiguous();
  if (a.inputs.stride(2) != 1) a.inputs = a.inputs.contiguous();
  a.hidden = a.hidden.contiguous();
  a.memory = a.memory.contiguous();
}

// Instructions for bfloat16 products. Measured on a processor with AVX512_BF16, its dot products are twice as fast as float32.
// Without them, conversions within the products make a step 2.9 times as long as in float32, so operands are rounded before.
enum class Products { rounded, vectors, tiles };

// Linux grants the tile registers of AMX on request, once per process. SEQMEM_INSTRUCTION_SET (kernels.cpp) disables AMX, and
// AVX512_BF16 unless it is "avx512_bf16".
Products select_products() {
#if defined(__linux__) && defined(__x86_64__) && !defined(__clang__)
  const char* const limit = std::getenv("SEQMEM_INSTRUCTION_SET");
  if (sequence_kernels().bf16 == nullptr || !__builtin_cpu_supports("avx512bf16")) return Products::rounded;
  if (limit != nullptr) return std::string(limit) == "avx512_bf16" ? Products::vectors : Products::rounded;
  constexpr int request_permission = 0x1023, tile_data = 18;
  const bool amx = __builtin_cpu_supports("amx-bf16") && syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
  return amx ? Products::tiles : Products::vectors;
#else
  return Products::rounded;
#endif
}

Products products() {
  static const Products selected = select_products();
  return selected;
}

template <typename T>
Sequence<T> kernel_arguments(Arguments& a, int64_t lanes) {
  Sequence<T> s{};
  s.cell = a.cell;
  s.steps = a.steps();
  s.batch = a.batch();
  s.channels = a.channels();
  s.hidden = a.size();
  s.memories = a.memories();
  s.order = a.order();
  s.memory_activation = a.memory_activation;
  s.hidden_activation = a.hidden_activation;
  s.inputs = const_data<T>(a.inputs);
  s.input_row = a.inputs.stride(0);
  s.input_step = a.inputs.stride(1);
  s.lengths = optional_data<int64_t>(a.lengths);
  s.step_sizes = optional_data<double>(a.step_sizes);
  s.per_row_step_sizes = a.step_sizes && a.step_sizes->dim() == 2;
  s.alpha = a.alpha;
  if (a.generators) s.generators = a.converted.generators<T>(*a.generators);
  if (a.step) {
    s.step = a.converted.packed_panels<T>(*a.step, 2 * lanes);
    s.step_transposed = a.converted.packed_panels<T>(a.step->t(), 2 * lanes);
    s.drive = a.converted.convert<T>(*a.drive);
  }
  s.hidden_before = const_data<T>(a.hidden);
  s.memory_before = const_data<T>(a.memory);
  for (int source = 0; source < kSources; ++source) s.weight[source] = optional_data<T>(a.weight[source]);
  s.bias = optional_data<T>(a.bias);
  s.weight_ux = optional_data<T>(a.weight_ux);
  s.weight_uh = optional_data<T>(a.weight_uh);
  s.weight_um = optional_data<T>(a.weight_um);
  s.bias_u = optional_data<T>(a.bias_u);
  s.output_width = a.output_width();
  s.amx = a.bfloat16 && products() == Products::tiles;
  s.rounds = a.bfloat16 && products() == Products::rounded;
  s.chunk_steps = a.chunk_steps;
  return s;
}

template <typename T>
SequenceKernels<T> kernels_of(const Arguments& a) {
  const SequenceTable& table = sequence_kernels();
  if constexpr (std::is_same_v<T, float>) {
    return a.bfloat16 && products() != Products::rounded ? table.bf16(a.cell) : table.f32(a.cell);
  } else {
    return table.f64(a.cell);
  }
}

template <typename T>
Tensor pack_weights(const SequenceKernels<T>& kernels, Sequence<T>& s, bool backward, const at::TensorOptions& options) {
  const Tensor storage = at::empty({kernels.packed(s, backward)}, options);
  s.packed = mutable_data<T>(storage);
  parallel_for(0, kernels.panels(s, backward), 1, [&](int64_t begin, int64_t end) { kernels.pack(s, backward, begin, end); });
  return storage;
}

template <typename T>
void run_forward(Arguments& a, Results& results) {
  const SequenceKernels<T> kernels = kernels_of<T>(a);
  Sequence<T> s = kernel_arguments<T>(a, kernels.lanes);
  const Tensor weights = pack_weights<T>(kernels, s, false, a.inputs.options());
  s.streams = results.outputs.nbytes() + results.saved.nbytes() >= kStreamedBytes && is_aligned(results.outputs) &&
              is_aligned(results.saved);
  s.outputs = mutable_data<T>(results.outputs);
  s.hidden_after = mutable_data<T>(results.hidden);
  s.memory_after = mutable_data<T>(results.memory);
  if (a.chunk_steps > 0) {
    s.saved = mutable_data<T>(results.saved);
    s.memory_inputs = mutable_data<T>(results.memory_inputs);
    s.checkpoints = mutable_data<T>(results.checkpoints);
  }
  const RowGroups groups(a.batch(), kernels.group_rows);
  const int64_t size = round_up(kernels.workspace(s, groups.max_rows(), false), kMaxLanes);
  const Tensor workspace = at::empty({groups.count, size}, a.inputs.options());
  T* const workspace_data = mutable_data<T>(workspace);
  parallel_for(0, groups.count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) {
      kernels.forward(s, groups.first_row(group), groups.rows(group), workspace_data + group * size);
    }
  });
}

// Checks the results of forward that backward reads; made contiguous.
void check_saved(const Arguments& a, Results& saved) {
  const int64_t batch = a.batch(), steps = a.steps();
  check_tensor(a.name, "outputs", saved.outputs, a.inputs, {batch, steps, a.output_width()});
  check_tensor(a.name, "saved", saved.saved, a.inputs, {steps, batch, a.saved_per_unit(), round_up(a.size(), kMaxLanes)});
  if (a.has_memory()) {
    check_tensor(a.name, "memory_inputs", saved.memory_inputs, a.inputs, {steps, batch, a.memories()});
    check_tensor(a.name, "checkpoints", saved.checkpoints, a.inputs, {a.chunks(), batch, a.memories(), a.order()});
  }
  for (Tensor* tensor : {&saved.outputs, &saved.saved, &saved.memory_inputs, &saved.checkpoints})
    *tensor = tensor->contiguous();
}

template <typename T>
void run_backward(Arguments& a, const Results& results, const OutputGradients& output_grads, Gradients& g) {
  const auto options = a.inputs.options();
  const SequenceKernels<T> kernels = kernels_of<T>(a);
  Sequence<T> s = kernel_arguments<T>(a, kernels.lanes);
  s.grad_inputs = g.inputs.dim() == 3 ? mutable_data<T>(g.inputs) : nullptr;
  s.outputs = mutable_data<T>(results.outputs);
  s.saved = mutable_data<T>(results.saved);
  s.memory_inputs = mutable_data<T>(results.memory_inputs);
  s.checkpoints = mutable_data<T>(results.checkpoints);
  s.grad_outputs = optional_data<T>(output_grads.outputs);
  s.grad_hidden_after = optional_data<T>(output_grads.hidden);
  s.grad_memory_after = optional_data<T>(output_grads.memory);
  s.grad_hidden_before = mutable_data<T>(g.hidden);
  s.grad_memory_before = mutable_data<T>(g.memory);
  g.lanes = kernels.lanes;
  g.layout = kernels.gradient_layout(s);
  if (a.empty()) {
    g.weights = at::zeros({g.layout.size}, options);
    return;
  }
  const Tensor weights = pack_weights<T>(kernels, s, true, options);
  const RowGroups groups(a.batch(), kernels.group_rows);
  const int64_t threads = at::get_num_threads();
  const int64_t size = round_up(kernels.workspace(s, groups.max_rows(), true), kMaxLanes);
  const Tensor workspace = empty_large({threads, size}, options);
  const Tensor weight_grads = at::zeros({threads, g.layout.size}, options);
  T* const workspace_data = mutable_data<T>(workspace);
  T* const weight_grads_data = mutable_data<T>(weight_grads);
  parallel_for(0, groups.count, 1, [&](int64_t begin, int64_t end) {
    const int64_t thread = at::get_thread_num();
    for (int64_t group = begin; group < end; ++group) {
      kernels.backward(
          s, groups.first_row(group), groups.rows(group), workspace_data + thread * size,
          weight_grads_data + thread * g.layout.size);
    }
  });
  g.weights = flushed(weight_grads.sum(0));
}

}  // namespace

Results forward(Arguments& a) {
  check(a);
  const at::AutoDispatchBelowADInplaceOrView guard;
  const auto options = a.inputs.options();
  Results results;
  results.outputs = empty_large({a.batch(), a.steps(), a.output_width()}, options);
  const int64_t steps = a.chunk_steps > 0 ? a.steps() : 0;
  results.saved = empty_large({steps, a.batch(), a.saved_per_unit(), round_up(a.size(), kMaxLanes)}, options);
  results.memory_inputs = at::empty({steps, a.batch(), a.memories()}, options);
  results.checkpoints = at::empty({steps > 0 ? a.chunks() : 0, a.batch(), a.memories(), a.order()}, options);
  if (a.empty()) {
    results.hidden = a.hidden.clone();
    results.memory = a.memory.clone();
  } else {
    results.hidden = at::empty_like(a.hidden);
    results.memory = at::empty_like(a.memory);
    a.inputs.scalar_type() == at::kFloat ? run_forward<float>(a, results) : run_forward<double>(a, results);
  }
  // Rows without steps are copies.
  results.hidden = flushed(results.hidden);
  results.memory = flushed(results.memory);
  return results;
}

Gradients backward(Arguments& a, Results results, const OutputGradients& output_grads, bool input_gradient) {
  check(a);
  const at::AutoDispatchBelowADInplaceOrView guard;
  const auto options = a.inputs.options();
  TORCH_CHECK_VALUE(
      a.chunk_steps > 0, a.name, ": chunk_steps: got ", a.chunk_steps, ", expected that of the forward call, above 0");
  check_saved(a, results);
  OutputGradients grads = output_grads;
  check_tensor(a.name, "grad_outputs", grads.outputs, a.inputs, results.outputs.sizes());
  check_tensor(a.name, "grad_hidden", grads.hidden, a.inputs, a.hidden.sizes());
  check_tensor(a.name, "grad_memory", grads.memory, a.inputs, a.memory.sizes());
  for (OptionalTensor* grad : {&grads.outputs, &grads.hidden, &grads.memory}) {
    if (*grad) *grad = (*grad)->contiguous();
  }
  Gradients g;
  g.inputs = at::empty(input_gradient ? a.inputs.sizes() : at::IntArrayRef({0}), options);
  if (a.empty()) {
    g.hidden = grads.hidden ? grads.hidden->clone() : at::zeros_like(a.hidden);
    g.memory = grads.memory ? grads.memory->clone() : at::zeros_like(a.memory);
  } else {
    g.hidden = at::empty_like(a.hidden);
    g.memory = at::empty_like(a.memory);
  }
  const bool is_float = a.inputs.scalar_type() == at::kFloat;
  is_float ? run_backward<float>(a, results, grads, g) : run_backward<double>(a, results, grads, g);
  g.hidden = flushed(g.hidden);
  g.memory = flushed(g.memory);
  return g;
}

std::string bfloat16_products() {
  switch (products()) {
    case Products::tiles:
      return "tiles";
    case Products::vectors:
      return "vectors";
    case Products::rounded:
      break;
  }
  return "rounded";
}

}  // namespace sequences
}  // namespace seqmem
