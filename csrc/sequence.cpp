// The operators torch.ops.seqmem.*_sequence and their backward operators; seqmem/ops/compiled_sequence.py registers the
// gradients.
#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <string>
#include <tuple>
#include <vector>

#include "denormals.h"
#include "sequence_run.h"

namespace seqmem::sequences {
namespace {

Activation activation(const char* name, const char* argument, const std::string& value) {
  if (value == "id") return Activation::identity;
  if (value == "tanh") return Activation::tanh;
  if (value == "relu") return Activation::relu;
  if (value == "sigmoid") return Activation::sigmoid;
  TORCH_CHECK_VALUE(false, name, ": ", argument, ": got '", value, "', expected 'id', 'tanh', 'relu' or 'sigmoid'");
}

Arguments memory_arguments(
    const char* name, const Tensor& inputs, const Tensor& hidden, const Tensor& memory, const OptionalTensor& step_sizes,
    const OptionalTensor& generators, const OptionalTensor& step, const OptionalTensor& drive, const OptionalTensor& lengths,
    const OptionalTensor& weight_ux, const OptionalTensor& weight_uh, const OptionalTensor& weight_um,
    const OptionalTensor& bias_u, const OptionalTensor& weight_hx, const OptionalTensor& weight_hm,
    const OptionalTensor& weight_hh, const OptionalTensor& bias_h, double alpha, const std::string& memory_activation,
    const std::string& hidden_activation, bool gated, bool memory_output, bool bfloat16, int64_t chunk_steps) {
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
  a.alpha = alpha;
  a.memory_activation = activation(name, "memory_activation", memory_activation);
  a.hidden_activation = activation(name, "hidden_activation", hidden_activation);
  a.memory_output = memory_output;
  a.bfloat16 = bfloat16;
  a.chunk_steps = chunk_steps;
  return a;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> memory_sequence(
    const Tensor& inputs, const Tensor& hidden, const Tensor& memory, const OptionalTensor& step_sizes,
    const OptionalTensor& generators, const OptionalTensor& step, const OptionalTensor& drive, const OptionalTensor& lengths,
    const OptionalTensor& weight_ux, const OptionalTensor& weight_uh, const OptionalTensor& weight_um,
    const OptionalTensor& bias_u, const OptionalTensor& weight_hx, const OptionalTensor& weight_hm,
    const OptionalTensor& weight_hh, const OptionalTensor& bias_h, double alpha, std::string memory_activation,
    std::string hidden_activation, bool gated, bool memory_output, bool bfloat16, int64_t chunk_steps) {
  Arguments a = memory_arguments(
      "seqmem::memory_sequence", inputs, hidden, memory, step_sizes, generators, step, drive, lengths, weight_ux, weight_uh,
      weight_um, bias_u, weight_hx, weight_hm, weight_hh, bias_h, alpha, memory_activation, hidden_activation, gated,
      memory_output, bfloat16, chunk_steps);
  const Results r = forward(a);
  return {r.outputs, r.hidden, r.memory, r.saved, r.memory_inputs, r.checkpoints};
}

std::vector<Tensor> memory_sequence_backward(
    const OptionalTensor& grad_outputs, const OptionalTensor& grad_hidden, const OptionalTensor& grad_memory,
    const Tensor& outputs, const Tensor& saved, const Tensor& memory_inputs, const Tensor& checkpoints, const Tensor& inputs,
    const Tensor& hidden, const Tensor& memory, const OptionalTensor& step_sizes, const OptionalTensor& generators,
    const OptionalTensor& step, const OptionalTensor& drive, const OptionalTensor& lengths, const OptionalTensor& weight_ux,
    const OptionalTensor& weight_uh, const OptionalTensor& weight_um, const OptionalTensor& bias_u,
    const OptionalTensor& weight_hx, const OptionalTensor& weight_hm, const OptionalTensor& weight_hh,
    const OptionalTensor& bias_h, double alpha, std::string memory_activation, std::string hidden_activation, bool gated,
    bool memory_output, bool bfloat16, int64_t chunk_steps, bool input_gradient) {
  Arguments a = memory_arguments(
      "seqmem::memory_sequence_backward", inputs, hidden, memory, step_sizes, generators, step, drive, lengths, weight_ux,
      weight_uh, weight_um, bias_u, weight_hx, weight_hm, weight_hh, bias_h, alpha, memory_activation, hidden_activation, gated,
      memory_output, bfloat16, chunk_steps);
  const Results results{outputs, {}, {}, saved, memory_inputs, checkpoints};
  const Gradients g = backward(a, results, {grad_outputs, grad_hidden, grad_memory}, input_gradient);
  const auto absent = [&] { return at::empty({0}, inputs.options()); };
  const Columns& columns = g.layout.columns;
  const int64_t memories = a.memories(), order = a.order(), channels = a.channels();
  const auto gates = [&](const OptionalTensor& weight, int64_t column, int64_t count) {
    return weight ? g.gates(a, 0, a.memory_gates(), column, count).view(weight->sizes()) : absent();
  };
  const auto sum_lanes = [&](const OptionalTensor& weight, int64_t start) {
    return weight ? flushed(g.part(start, {weight->numel(), g.lanes}).sum(1)).view(weight->sizes()) : absent();
  };
  const auto padded_uh = [&] { return g.part(g.layout.weight_uh, {memories, round_up(a.size(), g.lanes)}); };
  const Tensor grad_uh = weight_uh ? padded_uh().narrow(1, 0, a.size()).clone(at::MemoryFormat::Contiguous) : absent();
  return {
      g.inputs,
      g.hidden,
      g.memory,
      sum_lanes(weight_ux, g.layout.weight_ux),
      grad_uh,
      sum_lanes(weight_um, g.layout.weight_um),
      sum_lanes(bias_u, g.layout.bias_u),
      gates(weight_hx, columns.input, channels),
      gates(weight_hm, 0, memories * order),
      gates(weight_hh, columns.hidden, a.size()),
      gates(bias_h, columns.bias, 1)};
}

void check_shapes(const char* name, const Tensor& inputs, const Tensor& hidden) {
  TORCH_CHECK_VALUE(
      inputs.dim() == 3 && hidden.dim() == 2, name, ": inputs and hidden: got shapes ", inputs.sizes(), " and ", hidden.sizes(),
      ", expected (B, T, C) and (B, H)");
  check_sizes(name, hidden);
}

Arguments gated_arguments(
    Cell cell, const char* name, const Tensor& inputs, const Tensor& hidden, const Tensor& memory,
    const OptionalTensor& lengths, const Tensor& weight_ih, const Tensor& weight_hh, const OptionalTensor& bias_ih,
    const OptionalTensor& bias_hh, bool bfloat16, int64_t chunk_steps) {
  const int64_t gates = cell == Cell::lstm ? 4 : 3;
  check_shapes(name, inputs, hidden);
  const int64_t size = hidden.size(1);
  check_tensor(name, "weight_ih", weight_ih, inputs, {gates * size, inputs.size(2)});
  check_tensor(name, "weight_hh", weight_hh, inputs, {gates * size, size});
  check_tensor(name, "bias_ih", bias_ih, inputs, {gates * size});
  check_tensor(name, "bias_hh", bias_hh, inputs, {gates * size});
  TORCH_CHECK_VALUE(bool(bias_ih) == bool(bias_hh), name, ": got one of bias_ih and bias_hh, expected both or neither");
  Arguments a{cell, name, inputs, hidden, memory, lengths};
  a.bfloat16 = bfloat16;
  a.chunk_steps = chunk_steps;
  a.weight[from_hidden] = weight_hh;
  a.weight[from_input] = weight_ih;
  if (cell == Cell::gru_reset_before) a.weight[from_memory] = weight_hh.narrow(0, 2 * size, size);
  if (bias_ih) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    a.bias = *bias_ih + *bias_hh;
    if (cell == Cell::gru) {
      const Tensor candidate_hh = bias_hh->narrow(0, 2 * size, size), candidate_ih = bias_ih->narrow(0, 2 * size, size);
      a.bias = at::cat({a.bias->narrow(0, 0, 2 * size), candidate_hh, candidate_ih});
    }
  }
  return a;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> lstm_sequence(
    const Tensor& inputs, const Tensor& hidden, const Tensor& memory, const OptionalTensor& lengths, const Tensor& weight_ih,
    const Tensor& weight_hh, const OptionalTensor& bias_ih, const OptionalTensor& bias_hh, bool bfloat16, int64_t chunk_steps) {
  Arguments a = gated_arguments(
      Cell::lstm, "seqmem::lstm_sequence", inputs, hidden, memory, lengths, weight_ih, weight_hh, bias_ih, bias_hh, bfloat16,
      chunk_steps);
  const Results r = forward(a);
  return {r.outputs, r.hidden, r.memory, r.saved};
}

std::vector<Tensor> lstm_sequence_backward(
    const OptionalTensor& grad_outputs, const OptionalTensor& grad_hidden, const OptionalTensor& grad_memory,
    const Tensor& outputs, const Tensor& saved, const Tensor& inputs, const Tensor& hidden, const Tensor& memory,
    const OptionalTensor& lengths, const Tensor& weight_ih, const Tensor& weight_hh, const OptionalTensor& bias_ih,
    const OptionalTensor& bias_hh, bool bfloat16, int64_t chunk_steps, bool input_gradient) {
  Arguments a = gated_arguments(
      Cell::lstm, "seqmem::lstm_sequence_backward", inputs, hidden, memory, lengths, weight_ih, weight_hh, bias_ih, bias_hh,
      bfloat16, chunk_steps);
  const Tensor absent = at::empty({0}, inputs.options());
  const OutputGradients grads{grad_outputs, grad_hidden, grad_memory};
  const Gradients g = backward(a, {outputs, {}, {}, saved, absent, absent}, grads, input_gradient);
  const Columns& columns = g.layout.columns;
  const Tensor bias = bias_ih ? g.gates(a, 0, 4, columns.bias, 1).squeeze(1) : absent;
  return {g.inputs,
          g.hidden,
          g.memory,
          g.gates(a, 0, 4, columns.input, a.channels()),
          g.gates(a, 0, 4, columns.hidden, a.size()),
          bias,
          bias.clone()};
}

Arguments gru_arguments(
    const char* name, const Tensor& inputs, const Tensor& hidden, const OptionalTensor& lengths, const Tensor& weight_ih,
    const Tensor& weight_hh, const OptionalTensor& bias_ih, const OptionalTensor& bias_hh, bool reset_after,
    const std::string& hidden_activation, bool bfloat16, int64_t chunk_steps) {
  Arguments a = gated_arguments(
      reset_after ? Cell::gru : Cell::gru_reset_before, name, inputs, hidden, hidden, lengths, weight_ih, weight_hh, bias_ih,
      bias_hh, bfloat16, chunk_steps);
  a.hidden_activation = activation(name, "hidden_activation", hidden_activation);
  return a;
}

std::tuple<Tensor, Tensor, Tensor> gru_sequence(
    const Tensor& inputs, const Tensor& hidden, const OptionalTensor& lengths, const Tensor& weight_ih, const Tensor& weight_hh,
    const OptionalTensor& bias_ih, const OptionalTensor& bias_hh, bool reset_after, std::string hidden_activation,
    bool bfloat16, int64_t chunk_steps) {
  Arguments a = gru_arguments(
      "seqmem::gru_sequence", inputs, hidden, lengths, weight_ih, weight_hh, bias_ih, bias_hh, reset_after, hidden_activation,
      bfloat16, chunk_steps);
  const Results r = forward(a);
  return {r.outputs, r.hidden, r.saved};
}

std::vector<Tensor> gru_sequence_backward(
    const OptionalTensor& grad_outputs, const OptionalTensor& grad_hidden, const Tensor& outputs, const Tensor& saved,
    const Tensor& inputs, const Tensor& hidden, const OptionalTensor& lengths, const Tensor& weight_ih, const Tensor& weight_hh,
    const OptionalTensor& bias_ih, const OptionalTensor& bias_hh, bool reset_after, std::string hidden_activation,
    bool bfloat16, int64_t chunk_steps, bool input_gradient) {
  Arguments a = gru_arguments(
      "seqmem::gru_sequence_backward", inputs, hidden, lengths, weight_ih, weight_hh, bias_ih, bias_hh, reset_after,
      hidden_activation, bfloat16, chunk_steps);
  const Tensor absent = at::empty({0}, inputs.options());
  const Gradients g = backward(a, {outputs, {}, {}, saved, absent, absent}, {grad_outputs, grad_hidden, {}}, input_gradient);
  const Columns& columns = g.layout.columns;
  // The sections are the gradients of n, r, z and z_2, see GruPointwise, or of n, r and z, see GruResetBeforePointwise.
  const auto input_side = [&](int64_t column, int64_t count) {
    return at::cat({g.gates(a, 1, 2, column, count), g.gates(a, 0, 1, column, count)});
  };
  const auto hidden_side = [&](int64_t column, int64_t count) {
    if (reset_after) return g.gates(a, 1, 3, column, count);
    return at::cat({g.gates(a, 1, 2, column, count), g.gates(a, 0, 1, column == columns.hidden ? 0 : column, count)});
  };
  return {
      g.inputs,
      g.hidden,
      input_side(columns.input, a.channels()),
      hidden_side(columns.hidden, a.size()),
      bias_ih ? input_side(columns.bias, 1).squeeze(1) : absent,
      bias_hh ? hidden_side(columns.bias, 1).squeeze(1) : absent.clone()};
}

Arguments modrelu_arguments(
    const char* name, const Tensor& inputs, const Tensor& hidden, const OptionalTensor& lengths, const Tensor& weight_ih,
    const Tensor& weight_hh, const OptionalTensor& bias_ih, const Tensor& bias_modrelu, int64_t chunk_steps) {
  check_shapes(name, inputs, hidden);
  const int64_t size = hidden.size(1);
  check_tensor(name, "weight_ih", weight_ih, inputs, {size, inputs.size(2)});
  check_tensor(name, "weight_hh", weight_hh, inputs, {size, size});
  check_tensor(name, "bias_ih", bias_ih, inputs, {size});
  check_tensor(name, "bias_modrelu", bias_modrelu, inputs, {size});
  Arguments a{Cell::modrelu, name, inputs, hidden, hidden, lengths};
  a.chunk_steps = chunk_steps;
  a.weight[from_hidden] = weight_hh;
  a.weight[from_input] = weight_ih;
  const at::AutoDispatchBelowADInplaceOrView guard;
  a.bias = at::cat({bias_ih ? *bias_ih : at::zeros_like(bias_modrelu), bias_modrelu});
  return a;
}

std::tuple<Tensor, Tensor, Tensor> modrelu_sequence(
    const Tensor& inputs, const Tensor& hidden, const OptionalTensor& lengths, const Tensor& weight_ih, const Tensor& weight_hh,
    const OptionalTensor& bias_ih, const Tensor& bias_modrelu, int64_t chunk_steps) {
  Arguments a = modrelu_arguments(
      "seqmem::modrelu_sequence", inputs, hidden, lengths, weight_ih, weight_hh, bias_ih, bias_modrelu, chunk_steps);
  const Results r = forward(a);
  return {r.outputs, r.hidden, r.saved};
}

std::vector<Tensor> modrelu_sequence_backward(
    const OptionalTensor& grad_outputs, const OptionalTensor& grad_hidden, const Tensor& outputs, const Tensor& saved,
    const Tensor& inputs, const Tensor& hidden, const OptionalTensor& lengths, const Tensor& weight_ih, const Tensor& weight_hh,
    const OptionalTensor& bias_ih, const Tensor& bias_modrelu, int64_t chunk_steps, bool input_gradient) {
  Arguments a = modrelu_arguments(
      "seqmem::modrelu_sequence_backward", inputs, hidden, lengths, weight_ih, weight_hh, bias_ih, bias_modrelu, chunk_steps);
  const Tensor absent = at::empty({0}, inputs.options());
  const Gradients g = backward(a, {outputs, {}, {}, saved, absent, absent}, {grad_outputs, grad_hidden, {}}, input_gradient);
  const Columns& columns = g.layout.columns;
  const auto bias = [&](int64_t section) { return g.gates(a, section, 1, columns.bias, 1).squeeze(1); };
  return {
      g.inputs,
      g.hidden,
      g.gates(a, 0, 1, columns.input, a.channels()),
      g.gates(a, 0, 1, columns.hidden, a.size()),
      bias_ih ? bias(0) : absent,
      bias(1)};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(seqmem, library) {
  const auto define = [&](const std::string& schema) { library.def(schema.c_str()); };
  const std::string memory_schema =
      "Tensor inputs, Tensor hidden, Tensor memory, Tensor? step_sizes, Tensor? generators, Tensor? step, Tensor? drive, "
      "Tensor? lengths, Tensor? weight_ux, Tensor? weight_uh, "
      "Tensor? weight_um, Tensor? bias_u, Tensor? weight_hx, Tensor? weight_hm, Tensor? weight_hh, Tensor? bias_h, "
      "float alpha, str memory_activation, str hidden_activation, bool gated, bool memory_output, bool bfloat16, ";
  const std::string gated_schema = "Tensor? lengths, Tensor weight_ih, Tensor weight_hh, Tensor? bias_ih, Tensor? bias_hh, ";
  library.def("bfloat16_products() -> str", bfloat16_products);
  const std::string grads = "(Tensor? grad_outputs, Tensor? grad_hidden, ";
  define(
      "memory_sequence(" + memory_schema +
      "int chunk_steps) -> (Tensor outputs, Tensor hidden_after, Tensor memory_after, Tensor saved, Tensor memory_inputs, "
      "Tensor checkpoints)");
  define(
      "memory_sequence_backward" + grads +
      "Tensor? grad_memory, Tensor outputs, Tensor saved, Tensor memory_inputs, Tensor checkpoints, " + memory_schema +
      "int chunk_steps, bool input_gradient) -> Tensor[]");
  define(
      "lstm_sequence(Tensor inputs, Tensor hidden, Tensor memory, " + gated_schema +
      "bool bfloat16, int chunk_steps) -> (Tensor outputs, Tensor hidden_after, Tensor memory_after, Tensor saved)");
  define(
      "lstm_sequence_backward" + grads +
      "Tensor? grad_memory, Tensor outputs, Tensor saved, Tensor inputs, Tensor hidden, Tensor memory, " + gated_schema +
      "bool bfloat16, int chunk_steps, bool input_gradient) -> Tensor[]");
  define(
      "gru_sequence(Tensor inputs, Tensor hidden, " + gated_schema +
      "bool reset_after, str hidden_activation, bool bfloat16, int chunk_steps) -> (Tensor outputs, Tensor hidden_after, Tensor saved)");
  define(
      "gru_sequence_backward" + grads + "Tensor outputs, Tensor saved, Tensor inputs, Tensor hidden, " + gated_schema +
      "bool reset_after, str hidden_activation, bool bfloat16, int chunk_steps, bool input_gradient) -> Tensor[]");
  const std::string modrelu_schema =
      "Tensor inputs, Tensor hidden, Tensor? lengths, Tensor weight_ih, Tensor weight_hh, Tensor? bias_ih, "
      "Tensor bias_modrelu, int chunk_steps";
  define("modrelu_sequence(" + modrelu_schema + ") -> (Tensor outputs, Tensor hidden_after, Tensor saved)");
  define(
      "modrelu_sequence_backward" + grads + "Tensor outputs, Tensor saved, " + modrelu_schema +
      ", bool input_gradient) -> Tensor[]");
}

TORCH_LIBRARY_IMPL(seqmem, CPU, library) {
  library.impl("memory_sequence", memory_sequence);
  library.impl("memory_sequence_backward", memory_sequence_backward);
  library.impl("lstm_sequence", lstm_sequence);
  library.impl("lstm_sequence_backward", lstm_sequence_backward);
  library.impl("gru_sequence", gru_sequence);
  library.impl("gru_sequence_backward", gru_sequence_backward);
  library.impl("modrelu_sequence", modrelu_sequence);
  library.impl("modrelu_sequence_backward", modrelu_sequence_backward);
}

}  // namespace seqmem::sequences
