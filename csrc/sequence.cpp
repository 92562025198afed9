// The operators torch.ops.seqmem.*_sequence and their gradients. Gradients are tied to the operators in seqmem/ops/sequence.py.
#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <string>
#include <tuple>
#include <vector>

#include "sequence_run.h"

namespace seqmem::sequences {
namespace {

Activation activation(const char* name, const std::string& given) {
  if (given == "id") return Activation::identity;
  if (given == "tanh") return Activation::tanh;
  if (given == "relu") return Activation::relu;
  if (given == "sigmoid") return Activation::sigmoid;
  TORCH_CHECK_VALUE(false, name, ": an activation must be 'id', 'tanh', 'relu' or 'sigmoid', got '", given, "'");
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

}  // namespace seqmem::sequences
