// Checks, the split of the batch over threads, and the kernels of this processor.
#include "sequence_run.h"

#include <ATen/Parallel.h>
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

#include "groups.h"
#include "kernels.h"

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
  static const SequenceTable chosen = [] {
#if defined(__x86_64__) && !defined(__clang__)
    const std::string instruction_set = kernels().instruction_set;
    if (instruction_set == "avx512") return avx512::sequence_table();
    if (instruction_set == "avx2") return avx2::sequence_table();
#endif
    return baseline::sequence_table();
  }();
  return chosen;
}

// From here on what a step gives is not found in a cache again on the way back.
constexpr size_t kStreamedBytes = size_t(1) << 24;

bool is_aligned(const Tensor& tensor) { return reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 64 == 0; }

void check(Arguments& a) {
  const char* const name = a.name;
  for (const Tensor* tensor : {&a.inputs, &a.hidden, &a.memory}) check_extent(name, *tensor);
  TORCH_CHECK_VALUE(a.inputs.dim() == 3, name, ": inputs must have shape (B, T, C), got ", a.inputs.sizes());
  check_floating(name, "inputs", a.inputs);
  TORCH_CHECK_VALUE(a.hidden.dim() == 2, name, ": hidden must have shape (B, H), got ", a.hidden.sizes());
  const int64_t batch = a.batch(), size = a.size();
  check_shape(name, "hidden", a.hidden, a.inputs, {batch, size});
  TORCH_CHECK_VALUE(
      !a.bfloat16 || (a.inputs.scalar_type() == at::kFloat && sequence_kernels().half != nullptr), name,
      ": bfloat16 products are of float32 tensors, on a processor with AVX-512");
  check_lengths(name, a.lengths, batch);
  a.chunk_steps = std::min(a.chunk_steps, std::max<int64_t>(1, a.steps()));
  if (a.has_memory()) {
    TORCH_CHECK_VALUE(a.memory.dim() == 3, name, ": memory must have shape (B, M, N), got ", a.memory.sizes());
    const int64_t memories = a.memories(), order = a.order(), channels = a.channels();
    const int64_t rows = a.gradients() * size;
    check_shape(name, "memory", a.memory, a.inputs, {batch, memories, order});
    check_shape(name, "weight_ux", a.weight_ux, a.inputs, {memories, channels});
    check_shape(name, "weight_uh", a.weight_uh, a.inputs, {memories, size});
    check_shape(name, "weight_um", a.weight_um, a.inputs, {memories, order});
    check_shape(name, "bias_u", a.bias_u, a.inputs, {memories});
    check_shape(name, "weight_hx", a.weight[from_input], a.inputs, {rows, channels});
    check_shape(name, "weight_hm", a.weight[from_memory], a.inputs, {rows, memories * order});
    check_shape(name, "weight_hh", a.weight[from_hidden], a.inputs, {rows, size});
    check_shape(name, "bias_h", a.bias, a.inputs, {rows});
    TORCH_CHECK_VALUE(
        (a.generators && a.step_sizes && !a.step && !a.drive) || (!a.generators && !a.step_sizes && a.step && a.drive), name,
        ": a memory has generators and step_sizes, or step and drive");
    if (a.generators) {
      check_double(name, "generators", *a.generators, {6, order});
      const bool own = a.step_sizes->dim() == 2;
      check_double(name, "step_sizes", *a.step_sizes, own ? at::IntArrayRef({a.steps(), batch}) : at::IntArrayRef({a.steps()}));
    } else {
      check_double(name, "step", *a.step, {order, order});
      check_double(name, "drive", *a.drive, {order});
    }
    for (Maybe* weight : {&a.weight_ux, &a.weight_uh, &a.weight_um, &a.bias_u, &a.step_sizes, &a.generators, &a.step, &a.drive}) {
      if (*weight) *weight = (*weight)->contiguous();
    }
  } else {
    check_shape(name, "memory", a.memory, a.inputs, {batch, size});
  }
  for (Maybe& weight : a.weight) {
    if (weight) weight = weight->contiguous();
  }
  if (a.bias) a.bias = a.bias->contiguous();
  if (a.inputs.stride(2) != 1) a.inputs = a.inputs.contiguous();
  a.hidden = a.hidden.contiguous();
  a.memory = a.memory.contiguous();
}

// Asks Linux, once, for the matrix tiles of AMX. A wish for less than the processor has, see kernels.cpp, is a wish for none.
bool has_tiles() {
#if defined(__linux__) && defined(__x86_64__) && !defined(__clang__)
  constexpr int request_permission = 0x1023, tile_data = 18;
  static const bool granted = std::getenv("SEQMEM_INSTRUCTION_SET") == nullptr && __builtin_cpu_supports("amx-bf16") &&
      syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
  return granted;
#else
  return false;
#endif
}

template <typename T>
Sequence<T> describe(Arguments& a, int64_t lanes) {
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
  s.inputs = readable<T>(a.inputs);
  s.input_row = a.inputs.stride(0);
  s.input_step = a.inputs.stride(1);
  s.lengths = data<int64_t>(a.lengths);
  s.step_sizes = data<double>(a.step_sizes);
  s.own_step_sizes = a.step_sizes && a.step_sizes->dim() == 2;
  s.implicit = a.implicit;
  if (a.generators) s.generators = a.held.generators<T>(*a.generators);
  if (a.step) {
    s.step = a.held.panels<T>(*a.step, 2 * lanes);
    s.step_transposed = a.held.panels<T>(a.step->t(), 2 * lanes);
    s.drive = a.held.numbers<T>(*a.drive);
  }
  s.hidden_before = readable<T>(a.hidden);
  s.memory_before = readable<T>(a.memory);
  for (int source = 0; source < kSources; ++source) s.weight[source] = data<T>(a.weight[source]);
  s.bias = data<T>(a.bias);
  s.weight_ux = data<T>(a.weight_ux);
  s.weight_uh = data<T>(a.weight_uh);
  s.weight_um = data<T>(a.weight_um);
  s.bias_u = data<T>(a.bias_u);
  s.output_width = a.output_width();
  s.tiles = a.bfloat16 && has_tiles();
  s.chunk_steps = a.chunk_steps;
  return s;
}

template <typename T>
SequenceKernels<T> kernels_of(const Arguments& a) {
  const SequenceTable& table = sequence_kernels();
  if constexpr (std::is_same_v<T, float>) {
    return a.bfloat16 ? table.half(a.cell) : table.single(a.cell);
  } else {
    return table.twice(a.cell);
  }
}

template <typename T>
Tensor packed(const SequenceKernels<T>& kernels, Sequence<T>& s, bool backward, const at::TensorOptions& options) {
  const Tensor storage = at::empty({kernels.packed(s, backward)}, options);
  s.packed = writable<T>(storage);
  at::parallel_for(0, kernels.panels(s, backward), 1, [&](int64_t begin, int64_t end) { kernels.pack(s, backward, begin, end); });
  return storage;
}

template <typename T>
void run(Arguments& a, Results& results) {
  const SequenceKernels<T> kernels = kernels_of<T>(a);
  Sequence<T> s = describe<T>(a, kernels.lanes);
  const Tensor weights = packed<T>(kernels, s, false, a.inputs.options());
  s.streams = results.outputs.nbytes() + results.saved.nbytes() >= kStreamedBytes && is_aligned(results.outputs) &&
      is_aligned(results.saved);
  s.outputs = writable<T>(results.outputs);
  s.hidden_after = writable<T>(results.hidden);
  s.memory_after = writable<T>(results.memory);
  if (a.chunk_steps > 0) {
    s.saved = writable<T>(results.saved);
    s.written = writable<T>(results.written);
    s.checkpoints = writable<T>(results.checkpoints);
  }
  const Groups groups(a.batch(), kernels.most_rows);
  const int64_t size = round_up(kernels.workspace(s, groups.most(), false), kMaxLanes);
  const Tensor workspace = at::empty({groups.count, size}, a.inputs.options());
  T* const pieces = writable<T>(workspace);
  at::parallel_for(0, groups.count, 1, [&](int64_t begin, int64_t end) {
    [[maybe_unused]] const FlushDenormals flush;
    for (int64_t group = begin; group < end; ++group) {
      kernels.forward(s, groups.first(group), groups.rows(group), pieces + group * size);
    }
  });
}

// What the kernels read of a call forward, refused unless it is of one like this.
void check_kept(const Arguments& a, Results& kept) {
  const int64_t batch = a.batch(), steps = a.steps();
  check_shape(a.name, "outputs", kept.outputs, a.inputs, {batch, steps, a.output_width()});
  check_shape(a.name, "saved", kept.saved, a.inputs, {steps, batch, a.saved_numbers(), round_up(a.size(), kMaxLanes)});
  if (a.has_memory()) {
    check_shape(a.name, "written", kept.written, a.inputs, {steps, batch, a.memories()});
    check_shape(a.name, "checkpoints", kept.checkpoints, a.inputs, {a.chunks(), batch, a.memories(), a.order()});
  }
  for (Tensor* tensor : {&kept.outputs, &kept.saved, &kept.written, &kept.checkpoints}) *tensor = tensor->contiguous();
}

template <typename T>
void run_backward(Arguments& a, const Results& results, const Incoming& incoming, Gradients& g) {
  const auto options = a.inputs.options();
  const SequenceKernels<T> kernels = kernels_of<T>(a);
  Sequence<T> s = describe<T>(a, kernels.lanes);
  s.grad_inputs = g.inputs.dim() == 3 ? writable<T>(g.inputs) : nullptr;
  s.outputs = writable<T>(results.outputs);
  s.saved = writable<T>(results.saved);
  s.written = writable<T>(results.written);
  s.checkpoints = writable<T>(results.checkpoints);
  s.grad_outputs = data<T>(incoming.outputs);
  s.grad_hidden_after = data<T>(incoming.hidden);
  s.grad_memory_after = data<T>(incoming.memory);
  s.grad_hidden_before = writable<T>(g.hidden);
  s.grad_memory_before = writable<T>(g.memory);
  g.lanes = kernels.lanes;
  g.layout = kernels.totals(s);
  if (a.empty()) {
    g.totals = at::zeros({g.layout.size}, options);
    return;
  }
  const Tensor weights = packed<T>(kernels, s, true, options);
  const Groups groups(a.batch(), kernels.most_rows);
  const int64_t threads = at::get_num_threads();
  const int64_t size = round_up(kernels.workspace(s, groups.most(), true), kMaxLanes);
  const Tensor workspace = empty_large({threads, size}, options);
  const Tensor totals = at::zeros({threads, g.layout.size}, options);
  T* const pieces = writable<T>(workspace);
  T* const sums = writable<T>(totals);
  at::parallel_for(0, groups.count, 1, [&](int64_t begin, int64_t end) {
    [[maybe_unused]] const FlushDenormals flush;
    const int64_t thread = at::get_thread_num();
    for (int64_t group = begin; group < end; ++group) {
      kernels.backward(s, groups.first(group), groups.rows(group), pieces + thread * size, sums + thread * g.layout.size);
    }
  });
  g.totals = totals.sum(0);
}

}  // namespace

Results forward(Arguments& a) {
  check(a);
  const at::AutoDispatchBelowADInplaceOrView guard;
  const auto options = a.inputs.options();
  Results results;
  results.outputs = empty_large({a.batch(), a.steps(), a.output_width()}, options);
  const int64_t steps = a.chunk_steps > 0 ? a.steps() : 0;
  results.saved = empty_large({steps, a.batch(), a.saved_numbers(), round_up(a.size(), kMaxLanes)}, options);
  results.written = at::empty({steps, a.batch(), a.memories()}, options);
  results.checkpoints = at::empty({steps > 0 ? a.chunks() : 0, a.batch(), a.memories(), a.order()}, options);
  if (a.empty()) {
    results.hidden = a.hidden.clone();
    results.memory = a.memory.clone();
    return results;
  }
  results.hidden = at::empty_like(a.hidden);
  results.memory = at::empty_like(a.memory);
  a.inputs.scalar_type() == at::kFloat ? run<float>(a, results) : run<double>(a, results);
  return results;
}

Gradients backward(Arguments& a, Results results, const Incoming& incoming, bool input_gradient) {
  check(a);
  const at::AutoDispatchBelowADInplaceOrView guard;
  const auto options = a.inputs.options();
  TORCH_CHECK_VALUE(a.chunk_steps > 0, a.name, ": chunk_steps must be positive, as in the call that goes back, got ", a.chunk_steps);
  check_kept(a, results);
  Incoming flows = incoming;
  check_shape(a.name, "the gradient of outputs", flows.outputs, a.inputs, results.outputs.sizes());
  check_shape(a.name, "the gradient of hidden", flows.hidden, a.inputs, a.hidden.sizes());
  check_shape(a.name, "the gradient of memory", flows.memory, a.inputs, a.memory.sizes());
  for (Maybe* flow : {&flows.outputs, &flows.hidden, &flows.memory}) {
    if (*flow) *flow = (*flow)->contiguous();
  }
  Gradients g;
  g.inputs = at::empty(input_gradient ? a.inputs.sizes() : at::IntArrayRef({0}), options);
  if (a.empty()) {
    g.hidden = flows.hidden ? flows.hidden->clone() : at::zeros_like(a.hidden);
    g.memory = flows.memory ? flows.memory->clone() : at::zeros_like(a.memory);
  } else {
    g.hidden = at::empty_like(a.hidden);
    g.memory = at::empty_like(a.memory);
  }
  a.inputs.scalar_type() == at::kFloat ? run_backward<float>(a, results, flows, g) : run_backward<double>(a, results, flows, g);
  return g;
}

std::string bfloat16_products() { return sequence_kernels().half == nullptr ? "" : has_tiles() ? "tiles" : "vectors"; }

}  // namespace sequences
}  // namespace seqmem
