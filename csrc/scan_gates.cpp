// The operator torch.ops.seqmem.minimal_gates, the recurrences of minGRU and minLSTM, and its backward operator.
// seqmem/ops/minimal_gates.py registers the gradient.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <string>
#include <tuple>
#include <vector>

#include "scan.h"
#include "scan_run.h"

namespace seqmem {
namespace {

using at::Tensor;

struct Arguments {
  const char* name;
  Tensor projected;
  OptionalTensor initial, lengths;
  Gates gates;
  std::vector<int64_t> state = {}, outputs = {};  // shapes

  int64_t steps() const { return projected.size(1); }
  int64_t parts() const { return gates == Gates::gru ? 2 : 3; }
};

Gates gates_of(const char* name, const std::string& text) {
  if (text == "gru") return Gates::gru;
  if (text == "lstm") return Gates::lstm;
  TORCH_CHECK_VALUE(text == "lstm_raw", name, ": gates: got '", text, "', expected gru, lstm or lstm_raw");
  return Gates::lstm_raw;
}

void check(Arguments& s) {
  const int64_t parts = s.parts();
  TORCH_CHECK_VALUE(
      s.projected.dim() == 3 && s.projected.size(2) % parts == 0, s.name, ": projected: got shape ", s.projected.sizes(),
      ", expected (B, T, ", parts, " E)");
  check_floating(s.name, "projected", s.projected);
  check_sizes(s.name, s.projected);
  s.state = {s.projected.size(0), s.projected.size(2) / parts};
  s.outputs = {s.state[0], s.steps(), s.state[1]};
  check_tensor(s.name, "initial", s.initial, s.projected, s.state);
  check_lengths(s.name, s.lengths, s.state[0], s.steps());
  s.projected = s.projected.contiguous();
  s.initial = contiguous(s.initial);
}

template <typename T>
MinimalGates<T> loop_arguments(const Arguments& s, const Tensor& outputs, int64_t parts) {
  MinimalGates<T> loop{};
  loop.sizes = scan_sizes(outputs, s.lengths, parts);
  loop.gates = s.gates;
  loop.projected = const_data<T>(s.projected);
  loop.initial = optional_data<T>(s.initial);
  return loop;
}

template <typename T>
void forward(const Arguments& s, const Tensor& h, const Tensor& final) {
  MinimalGates<T> loop = loop_arguments<T>(s, h, 1);
  loop.h = mutable_data<T>(h);
  loop.final = mutable_data<T>(final);
  run_scan<T>(scan_kernels_of<T>().gates, loop);
}

std::tuple<Tensor, Tensor> minimal_gates(
    const Tensor& projected, const OptionalTensor& initial, const OptionalTensor& lengths, const std::string& gates) {
  constexpr const char* name = "seqmem::minimal_gates";
  Arguments s{name, projected, initial, lengths, gates_of(name, gates)};
  check(s);
  const at::AutoDispatchBelowADInplaceOrView guard;
  const auto options = s.projected.options();
  const Tensor h = empty_large(s.outputs, options);
  if (s.steps() == 0) return {h, kept_state(s.initial, s.state, options)};
  const Tensor final = at::empty(s.state, options);
  s.projected.scalar_type() == at::kFloat ? forward<float>(s, h, final) : forward<double>(s, h, final);
  return {h, flushed(final)};  // the state of a row without steps is a copy
}

template <typename T>
void backward(
    const Arguments& s, const Tensor& h, const OptionalTensor& grad_h, const OptionalTensor& grad_final,
    const Tensor& grad_projected, const Tensor& grad_initial) {
  MinimalGates<T> loop = loop_arguments<T>(s, grad_projected, s.parts());
  loop.states = const_data<T>(h);
  loop.grad_h = optional_data<T>(grad_h);
  loop.grad_final = optional_data<T>(grad_final);
  loop.grad_projected = mutable_data<T>(grad_projected);
  loop.grad_initial = mutable_data<T>(grad_initial);
  run_scan<T>(scan_kernels_of<T>().gates_backward, loop);
}

std::tuple<Tensor, Tensor> minimal_gates_backward(
    const OptionalTensor& grad_h, const OptionalTensor& grad_final, const Tensor& projected, const Tensor& h,
    const OptionalTensor& initial, const OptionalTensor& lengths, const std::string& gates) {
  constexpr const char* name = "seqmem::minimal_gates_backward";
  Arguments s{name, projected, initial, lengths, gates_of(name, gates)};
  check(s);
  check_tensor(name, "h", h, s.projected, s.outputs);
  check_tensor(name, "grad_h", grad_h, s.projected, s.outputs);
  check_tensor(name, "grad_final", grad_final, s.projected, s.state);
  const at::AutoDispatchBelowADInplaceOrView guard;
  const auto options = s.projected.options();
  const Tensor grad_projected = empty_large(s.projected.sizes(), options);
  const OptionalTensor grad_outputs = contiguous(grad_h), grad_state = contiguous(grad_final);
  if (s.steps() == 0) return {grad_projected, kept_state(grad_state, s.state, options)};
  const Tensor grad_initial = at::empty(s.state, options);
  const auto run = s.projected.scalar_type() == at::kFloat ? backward<float> : backward<double>;
  run(s, h.contiguous(), grad_outputs, grad_state, grad_projected, grad_initial);
  return {grad_projected, flushed(grad_initial)};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(seqmem, library) {
  library.def("minimal_gates(Tensor projected, Tensor? initial, Tensor? lengths, str gates) -> (Tensor h, Tensor final)");
  library.def(
      "minimal_gates_backward(Tensor? grad_h, Tensor? grad_final, Tensor projected, Tensor h, Tensor? initial, Tensor? "
      "lengths, str gates) -> (Tensor grad_projected, Tensor grad_initial)");
}

TORCH_LIBRARY_IMPL(seqmem, CPU, library) {
  library.impl("minimal_gates", minimal_gates);
  library.impl("minimal_gates_backward", minimal_gates_backward);
}

}  // namespace seqmem
