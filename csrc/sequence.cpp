// The operators torch.ops.seqmem.*_sequence and their gradients: checks, the split of the batch over threads, and the products
// that give the weights' gradients. Gradients are tied to the operators in seqmem/ops/sequence.py.
#include "sequence.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "checks.h"
#include "groups.h"
#include "held.h"
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

namespace {

using at::Tensor;

// From here on what a step gives is not found in a cache again on the way back.
constexpr size_t kStreamedBytes = size_t(1) << 25;

bool is_aligned(const Tensor& tensor) { return reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 64 == 0; }

// A cell's arguments under one roof.
struct Arguments {
  Cell cell;
  const char* name;
  Tensor inputs, hidden, memory;
  Maybe lengths;
  Maybe weight[kSources];
  Maybe bias;  // (kGates H,)
  Maybe weight_ux, weight_uh, weight_um, bias_u;
  Maybe step_sizes, generators;  // of the memory: (T,) or (T, B), (6, N) float64
  Maybe step, drive;             // or one step for all times: (N, N), (N,) float64
  double implicit = 0;
  Activation memory_activation = Activation::identity, hidden_activation = Activation::tanh;
  bool memory_output = false;
  bool bfloat16 = false;    // products of float32 tensors in bfloat16, with float32 sums
  Held held;
  int64_t chunk_steps = 0;  // steps between two checkpoints, all that is held of the way back at a time; 0 where there is none

  int64_t batch() const { return inputs.size(0); }
  int64_t steps() const { return inputs.size(1); }
  int64_t channels() const { return inputs.size(2); }
  int64_t size() const { return hidden.size(1); }
  bool has_memory() const { return cell == Cell::memory || cell == Cell::memory_ungated; }
  int64_t memories() const { return has_memory() ? memory.size(1) : 0; }
  int64_t order() const { return has_memory() ? memory.size(2) : 0; }
  int64_t output_width() const { return size() + (memory_output ? memories() * order() : 0); }
  int64_t saved_numbers() const { return cell == Cell::memory ? 2 : cell == Cell::memory_ungated ? 1 : cell == Cell::lstm ? 5 : 4; }
  int64_t gradients() const { return cell == Cell::memory ? 2 : cell == Cell::memory_ungated ? 1 : 4; }
  int64_t chunks() const { return (steps() + chunk_steps - 1) / chunk_steps; }
  bool empty() const { return batch() == 0 || steps() == 0; }
};

Activation activation(const char* name, const std::string& given) {
  if (given == "id") return Activation::identity;
  if (given == "tanh") return Activation::tanh;
  if (given == "relu") return Activation::relu;
  if (given == "sigmoid") return Activation::sigmoid;
  TORCH_CHECK_VALUE(false, name, ": an activation must be 'id', 'tanh', 'relu' or 'sigmoid', got '", given, "'");
}

void check(Arguments& a) {
  const char* const name = a.name;
  for (const Tensor* tensor : {&a.inputs, &a.hidden, &a.memory}) check_extent(name, *tensor);
  TORCH_CHECK_VALUE(a.inputs.dim() == 3, name, ": inputs must have shape (B, T, C), got ", a.inputs.sizes());
  TORCH_CHECK_VALUE(
      a.inputs.scalar_type() == at::kFloat || a.inputs.scalar_type() == at::kDouble, name,
      ": inputs must be float32 or float64, got ", a.inputs.scalar_type());
  TORCH_CHECK_VALUE(a.hidden.dim() == 2, name, ": hidden must have shape (B, H), got ", a.hidden.sizes());
  const int64_t batch = a.batch(), size = a.size();
  check_shape(name, "hidden", a.hidden, a.inputs, {batch, size});
  TORCH_CHECK_VALUE(
      !a.bfloat16 || (a.inputs.scalar_type() == at::kFloat && sequence_kernels().half != nullptr), name,
      ": bfloat16 products are of float32 tensors, on a processor with AVX-512");
  if (a.lengths) {
    TORCH_CHECK_VALUE(
        a.lengths->sizes() == at::IntArrayRef({batch}) && a.lengths->scalar_type() == at::kLong, name,
        ": lengths must be (B,) int64 with B = ", batch, ", got ", a.lengths->sizes(), " ", a.lengths->scalar_type());
    a.lengths = a.lengths->contiguous();
  }
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

struct Results {
  Tensor outputs, hidden, memory, saved, written, checkpoints;
};

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

// What flows back besides what the forward pass kept.
struct Incoming {
  Maybe outputs, hidden, memory;
};

struct Gradients {
  Tensor inputs, hidden, memory;
  Totals layout;
  int64_t lanes;
  Tensor totals;  // (layout.size,)

  Tensor part(int64_t start, at::IntArrayRef sizes) const {
    return totals.narrow(0, start, c10::multiply_integers(sizes)).view(sizes);
  }
  // Sections [first, first + count) of the gates' gradients times `columns` columns from `column` on: (count H, columns).
  Tensor gates(const Arguments& a, int64_t first, int64_t count, int64_t column, int64_t columns) const {
    const Tensor all = part(layout.gates, {layout.sections, layout.panels, layout.lines, 2 * lanes});
    const Tensor chosen = all.narrow(0, first, count)
        .narrow(2, column, columns)
        .transpose(2, 3)
        .reshape({count, layout.panels * 2 * lanes, columns})
        .narrow(1, 0, a.size())
        .reshape({count * a.size(), columns});
    return chosen.is_alias_of(totals) ? chosen.clone(at::MemoryFormat::Contiguous) : chosen;
  }
};

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

Arguments memory_arguments(
    const char* name, const Tensor& inputs, const Tensor& hidden, const Tensor& memory, const Maybe& step_sizes,
    const Maybe& generators, const Maybe& step, const Maybe& drive, const Maybe& lengths, const Maybe& weight_ux, const Maybe& weight_uh, const Maybe& weight_um, const Maybe& bias_u,
    const Maybe& weight_hx, const Maybe& weight_hm, const Maybe& weight_hh, const Maybe& bias_h, double implicit,
    const std::string& memory_activation, const std::string& hidden_activation, bool gated, bool memory_output,
    bool bfloat16, int64_t chunk_steps) {
  Arguments a{gated ? Cell::memory : Cell::memory_ungated, name, inputs, hidden, memory, lengths, {}, bias_h};
  a.step_sizes = step_sizes;
  a.generators = generators;
  a.step = step;
  a.drive = drive;
  a.weight[from_memory] = weight_hm;
  a.weight[from_hidden] = weight_hh;
  a.weight[from_input] = weight_hx;
  a.weight_ux = weight_ux;
  a.weight_uh = weight_uh;
  a.weight_um = weight_um;
  a.bias_u = bias_u;
  a.implicit = implicit;
  a.memory_activation = activation(name, memory_activation);
  a.hidden_activation = activation(name, hidden_activation);
  a.memory_output = memory_output;
  a.bfloat16 = bfloat16;
  a.chunk_steps = chunk_steps;
  return a;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> memory_sequence(
    const Tensor& inputs, const Tensor& hidden, const Tensor& memory, const Maybe& step_sizes, const Maybe& generators,
    const Maybe& step, const Maybe& drive, const Maybe& lengths, const Maybe& weight_ux, const Maybe& weight_uh, const Maybe& weight_um, const Maybe& bias_u, const Maybe& weight_hx,
    const Maybe& weight_hm, const Maybe& weight_hh, const Maybe& bias_h, double implicit, std::string memory_activation,
    std::string hidden_activation, bool gated, bool memory_output, bool bfloat16, int64_t chunk_steps) {
  Arguments a = memory_arguments(
      "seqmem::memory_sequence", inputs, hidden, memory, step_sizes, generators, step, drive, lengths, weight_ux, weight_uh, weight_um, bias_u, weight_hx,
      weight_hm, weight_hh, bias_h, implicit, memory_activation, hidden_activation, gated, memory_output, bfloat16,
      chunk_steps);
  const Results r = forward(a);
  return {r.outputs, r.hidden, r.memory, r.saved, r.written, r.checkpoints};
}

std::vector<Tensor> memory_sequence_backward(
    const Maybe& grad_outputs, const Maybe& grad_hidden, const Maybe& grad_memory, const Tensor& outputs, const Tensor& saved,
    const Tensor& written, const Tensor& checkpoints, const Tensor& inputs, const Tensor& hidden, const Tensor& memory,
    const Maybe& step_sizes, const Maybe& generators, const Maybe& step, const Maybe& drive, const Maybe& lengths, const Maybe& weight_ux, const Maybe& weight_uh, const Maybe& weight_um,
    const Maybe& bias_u, const Maybe& weight_hx, const Maybe& weight_hm, const Maybe& weight_hh, const Maybe& bias_h,
    double implicit, std::string memory_activation, std::string hidden_activation, bool gated, bool memory_output,
    bool bfloat16, int64_t chunk_steps, bool input_gradient) {
  Arguments a = memory_arguments(
      "seqmem::memory_sequence_backward", inputs, hidden, memory, step_sizes, generators, step, drive, lengths, weight_ux, weight_uh, weight_um, bias_u,
      weight_hx, weight_hm, weight_hh, bias_h, implicit, memory_activation, hidden_activation, gated, memory_output, bfloat16,
      chunk_steps);
  const Results results{outputs, {}, {}, saved, written, checkpoints};
  const Gradients g = backward(a, results, {grad_outputs, grad_hidden, grad_memory}, input_gradient);
  const Tensor none = at::empty({0}, inputs.options());
  const Columns& columns = g.layout.columns;
  const int64_t memories = a.memories(), order = a.order(), channels = a.channels();
  const auto gates = [&](const Maybe& weight, int64_t column, int64_t count) {
    return weight ? g.gates(a, 0, a.gradients(), column, count).view(weight->sizes()) : none;
  };
  const auto over_lanes = [&](const Maybe& weight, int64_t start) {
    return weight ? g.part(start, {weight->numel(), g.lanes}).sum(1).view(weight->sizes()) : none;
  };
  const Tensor to_uh = weight_uh
      ? g.part(g.layout.weight_uh, {memories, round_up(a.size(), g.lanes)}).narrow(1, 0, a.size()).clone(at::MemoryFormat::Contiguous)
      : none;
  return {
      g.inputs, g.hidden, g.memory, over_lanes(weight_ux, g.layout.weight_ux), to_uh,
      over_lanes(weight_um, g.layout.weight_um), over_lanes(bias_u, g.layout.bias_u), gates(weight_hx, columns.input, channels),
      gates(weight_hm, 0, memories * order), gates(weight_hh, columns.hidden, a.size()), gates(bias_h, columns.one, 1)};
}

Arguments gated_arguments(
    Cell cell, const char* name, const Tensor& inputs, const Tensor& hidden, const Tensor& memory, const Maybe& lengths,
    const Tensor& weight_ih, const Tensor& weight_hh, const Maybe& bias_ih, const Maybe& bias_hh, bool bfloat16,
    int64_t chunk_steps) {
  const int64_t gates = cell == Cell::lstm ? 4 : 3;
  TORCH_CHECK_VALUE(
      inputs.dim() == 3 && hidden.dim() == 2, name, ": inputs must be (B, T, C) and hidden (B, H), got ", inputs.sizes(), " and ",
      hidden.sizes());
  check_extent(name, hidden);
  const int64_t size = hidden.size(1);
  check_shape(name, "weight_ih", weight_ih, inputs, {gates * size, inputs.size(2)});
  check_shape(name, "weight_hh", weight_hh, inputs, {gates * size, size});
  check_shape(name, "bias_ih", bias_ih, inputs, {gates * size});
  check_shape(name, "bias_hh", bias_hh, inputs, {gates * size});
  TORCH_CHECK_VALUE(bool(bias_ih) == bool(bias_hh), name, ": bias_ih and bias_hh must be given both or neither");
  Arguments a{cell, name, inputs, hidden, memory, lengths};
  a.bfloat16 = bfloat16;
  a.chunk_steps = chunk_steps;
  a.weight[from_hidden] = weight_hh;
  a.weight[from_input] = weight_ih;
  if (bias_ih) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    a.bias = *bias_ih + *bias_hh;
    if (cell == Cell::gru) {
      a.bias = at::cat({a.bias->narrow(0, 0, 2 * size), bias_hh->narrow(0, 2 * size, size), bias_ih->narrow(0, 2 * size, size)});
    }
  }
  return a;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> lstm_sequence(
    const Tensor& inputs, const Tensor& hidden, const Tensor& memory, const Maybe& lengths, const Tensor& weight_ih,
    const Tensor& weight_hh, const Maybe& bias_ih, const Maybe& bias_hh, bool bfloat16, int64_t chunk_steps) {
  Arguments a = gated_arguments(
      Cell::lstm, "seqmem::lstm_sequence", inputs, hidden, memory, lengths, weight_ih, weight_hh, bias_ih, bias_hh, bfloat16,
      chunk_steps);
  const Results r = forward(a);
  return {r.outputs, r.hidden, r.memory, r.saved};
}

std::vector<Tensor> lstm_sequence_backward(
    const Maybe& grad_outputs, const Maybe& grad_hidden, const Maybe& grad_memory, const Tensor& outputs, const Tensor& saved,
    const Tensor& inputs, const Tensor& hidden, const Tensor& memory, const Maybe& lengths, const Tensor& weight_ih,
    const Tensor& weight_hh, const Maybe& bias_ih, const Maybe& bias_hh, bool bfloat16, int64_t chunk_steps, bool input_gradient) {
  Arguments a = gated_arguments(
      Cell::lstm, "seqmem::lstm_sequence_backward", inputs, hidden, memory, lengths, weight_ih, weight_hh, bias_ih, bias_hh, bfloat16,
      chunk_steps);
  const Tensor none = at::empty({0}, inputs.options());
  const Gradients g = backward(a, {outputs, {}, {}, saved, none, none}, {grad_outputs, grad_hidden, grad_memory}, input_gradient);
  const Columns& columns = g.layout.columns;
  const Tensor bias = bias_ih ? g.gates(a, 0, 4, columns.one, 1).squeeze(1) : none;
  return {
      g.inputs, g.hidden, g.memory, g.gates(a, 0, 4, columns.input, a.channels()), g.gates(a, 0, 4, columns.hidden, a.size()),
      bias, bias.clone()};
}

std::tuple<Tensor, Tensor, Tensor> gru_sequence(
    const Tensor& inputs, const Tensor& hidden, const Maybe& lengths, const Tensor& weight_ih, const Tensor& weight_hh,
    const Maybe& bias_ih, const Maybe& bias_hh, bool bfloat16, int64_t chunk_steps) {
  Arguments a = gated_arguments(
      Cell::gru, "seqmem::gru_sequence", inputs, hidden, hidden, lengths, weight_ih, weight_hh, bias_ih, bias_hh, bfloat16,
      chunk_steps);
  const Results r = forward(a);
  return {r.outputs, r.hidden, r.saved};
}

std::vector<Tensor> gru_sequence_backward(
    const Maybe& grad_outputs, const Maybe& grad_hidden, const Tensor& outputs, const Tensor& saved, const Tensor& inputs,
    const Tensor& hidden, const Maybe& lengths, const Tensor& weight_ih, const Tensor& weight_hh, const Maybe& bias_ih,
    const Maybe& bias_hh, bool bfloat16, int64_t chunk_steps, bool input_gradient) {
  Arguments a = gated_arguments(
      Cell::gru, "seqmem::gru_sequence_backward", inputs, hidden, hidden, lengths, weight_ih, weight_hh, bias_ih, bias_hh, bfloat16,
      chunk_steps);
  const Tensor none = at::empty({0}, inputs.options());
  const Gradients g = backward(a, {outputs, {}, {}, saved, none, none}, {grad_outputs, grad_hidden, {}}, input_gradient);
  const Columns& columns = g.layout.columns;
  // Sections are n, r, z, and n once more as the hidden state sees it.
  const auto input_side = [&](int64_t column, int64_t count) {
    return at::cat({g.gates(a, 1, 2, column, count), g.gates(a, 0, 1, column, count)});
  };
  return {
      g.inputs, g.hidden, input_side(columns.input, a.channels()), g.gates(a, 1, 3, columns.hidden, a.size()),
      bias_ih ? input_side(columns.one, 1).squeeze(1) : none, bias_hh ? g.gates(a, 1, 3, columns.one, 1).squeeze(1) : none};
}

// How the sequences multiply in bfloat16: by tiles, by vectors, or not at all (empty).
std::string bfloat16_products() { return sequence_kernels().half == nullptr ? "" : has_tiles() ? "tiles" : "vectors"; }

}  // namespace

TORCH_LIBRARY_FRAGMENT(seqmem, library) {
  const auto define = [&](const std::string& schema) { library.def(schema.c_str()); };
  const std::string network =
      "Tensor inputs, Tensor hidden, Tensor memory, Tensor? step_sizes, Tensor? generators, Tensor? step, Tensor? drive, "
      "Tensor? lengths, Tensor? weight_ux, Tensor? weight_uh, "
      "Tensor? weight_um, Tensor? bias_u, Tensor? weight_hx, Tensor? weight_hm, Tensor? weight_hh, Tensor? bias_h, "
      "float implicit, str memory_activation, str hidden_activation, bool gated, bool memory_output, bool bfloat16, ";
  const std::string weights =
      "Tensor? lengths, Tensor weight_ih, Tensor weight_hh, Tensor? bias_ih, Tensor? bias_hh, bool bfloat16, ";
  library.def("bfloat16_products() -> str", bfloat16_products);
  const std::string flows = "(Tensor? grad_outputs, Tensor? grad_hidden, ";
  define(
      "memory_sequence(" + network +
      "int chunk_steps) -> (Tensor outputs, Tensor hidden_after, Tensor memory_after, Tensor saved, Tensor written, Tensor checkpoints)");
  define(
      "memory_sequence_backward" + flows + "Tensor? grad_memory, Tensor outputs, Tensor saved, Tensor written, Tensor checkpoints, " +
      network + "int chunk_steps, bool input_gradient) -> Tensor[]");
  define(
      "lstm_sequence(Tensor inputs, Tensor hidden, Tensor memory, " + weights +
      "int chunk_steps) -> (Tensor outputs, Tensor hidden_after, Tensor memory_after, Tensor saved)");
  define(
      "lstm_sequence_backward" + flows +
      "Tensor? grad_memory, Tensor outputs, Tensor saved, Tensor inputs, Tensor hidden, Tensor memory, " + weights +
      "int chunk_steps, bool input_gradient) -> Tensor[]");
  define(
      "gru_sequence(Tensor inputs, Tensor hidden, " + weights + "int chunk_steps) -> (Tensor outputs, Tensor hidden_after, Tensor saved)");
  define(
      "gru_sequence_backward" + flows + "Tensor outputs, Tensor saved, Tensor inputs, Tensor hidden, " + weights +
      "int chunk_steps, bool input_gradient) -> Tensor[]");
}

TORCH_LIBRARY_IMPL(seqmem, CPU, library) {
  library.impl("memory_sequence", memory_sequence);
  library.impl("memory_sequence_backward", memory_sequence_backward);
  library.impl("lstm_sequence", lstm_sequence);
  library.impl("lstm_sequence_backward", lstm_sequence_backward);
  library.impl("gru_sequence", gru_sequence);
  library.impl("gru_sequence_backward", gru_sequence_backward);
}

}  // namespace seqmem
