// The operator torch.ops.seqmem.oscillators, the recurrence of LinOSS, and its backward operator. seqmem/ops/oscillators.py
// derives the coefficients and registers the gradient.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <tuple>
#include <vector>

#include "scan.h"
#include "scan_run.h"

namespace seqmem {
namespace {

using at::Tensor;

struct Arguments {
  const char* name;
  Tensor coefficients, driven;
  OptionalTensor initial, lengths;
  std::vector<int64_t> state = {};  // shape of the state

  int64_t steps() const { return driven.size(1); }
  bool is_float() const { return driven.scalar_type() == at::kFloat; }
};

void check(Arguments& s) {
  TORCH_CHECK_VALUE(
      s.driven.dim() == 4 && s.driven.size(3) == 2, s.name, ": driven: got shape ", s.driven.sizes(),
      ", expected (B, T, P, 2)");
  check_floating(s.name, "driven", s.driven);
  check_sizes(s.name, s.driven);
  s.state = {s.driven.size(0), 2, s.driven.size(2), 2};
  check_tensor(s.name, "coefficients", s.coefficients, s.driven, {kCoefficients, s.driven.size(2)});
  check_tensor(s.name, "initial", s.initial, s.driven, s.state);
  check_lengths(s.name, s.lengths, s.driven.size(0), s.steps());
  s.coefficients = s.coefficients.repeat_interleave(2, 1).contiguous();  // of real and imaginary part
  s.driven = s.driven.contiguous();
  s.initial = contiguous(s.initial);
}

template <typename T>
Oscillators<T> loop_arguments(const Arguments& s, const Tensor& outputs) {
  Oscillators<T> loop{};
  loop.sizes = scan_sizes(outputs, s.lengths);
  loop.coefficients = const_data<T>(s.coefficients);
  loop.driven = const_data<T>(s.driven);
  loop.initial = optional_data<T>(s.initial);
  return loop;
}

template <typename T>
void forward(const Arguments& s, const Tensor& positions, const Tensor& velocities, const Tensor& final) {
  Oscillators<T> loop = loop_arguments<T>(s, positions);
  loop.positions = mutable_data<T>(positions);
  loop.velocities = velocities.dim() == 4 ? mutable_data<T>(velocities) : nullptr;
  loop.final = mutable_data<T>(final);
  run_scan<T>(scan_kernels_of<T>().oscillators, loop);
}

std::tuple<Tensor, Tensor, Tensor> oscillators(
    const Tensor& coefficients, const Tensor& driven, const OptionalTensor& initial, const OptionalTensor& lengths,
    bool keeps_velocities) {
  const at::AutoDispatchBelowADInplaceOrView guard;
  Arguments s{"seqmem::oscillators", coefficients, driven, initial, lengths};
  check(s);
  const auto options = s.driven.options();
  const Tensor positions = empty_large(s.driven.sizes(), options);
  const Tensor velocities = empty_large(keeps_velocities ? s.driven.sizes() : at::IntArrayRef({0}), options);
  if (s.steps() == 0) return {positions, kept_state(s.initial, s.state, options), velocities};
  const Tensor final = at::empty(s.state, options);
  const auto run = s.is_float() ? forward<float> : forward<double>;
  run(s, positions, velocities, final);
  return {positions, flushed(final), velocities};  // the state of a row without steps is a copy
}

struct Gradients {
  OptionalTensor positions, final;  // given
  Tensor coefficients, driven, initial;
};

template <typename T>
void backward(const Arguments& s, const Tensor& positions, const Tensor& velocities, Gradients& grads) {
  Oscillators<T> loop = loop_arguments<T>(s, grads.driven);
  const auto options = s.driven.options();
  const int64_t width = s.coefficients.size(1);
  const Tensor rows = at::empty({loop.sizes.batch, kCoefficients, width}, options.dtype(at::kDouble));
  loop.all_positions = const_data<T>(positions);
  loop.all_velocities = const_data<T>(velocities);
  loop.grad_positions = optional_data<T>(grads.positions);
  loop.grad_final = optional_data<T>(grads.final);
  loop.grad_row = mutable_data<double>(rows);
  loop.grad_driven = mutable_data<T>(grads.driven);
  loop.grad_initial = mutable_data<T>(grads.initial);
  run_scan<T>(scan_kernels_of<T>().oscillators_backward, loop);
  grads.coefficients = sum_of_rows<T>(rows, {kCoefficients, width / 2, 2}, options).sum(2);
}

std::tuple<Tensor, Tensor, Tensor> oscillators_backward(
    const OptionalTensor& grad_positions, const OptionalTensor& grad_final, const Tensor& coefficients, const Tensor& driven,
    const OptionalTensor& initial, const OptionalTensor& lengths, const Tensor& positions, const Tensor& velocities) {
  const at::AutoDispatchBelowADInplaceOrView guard;
  Arguments s{"seqmem::oscillators_backward", coefficients, driven, initial, lengths};
  check(s);
  check_tensor(s.name, "positions", positions, s.driven, s.driven.sizes());
  check_tensor(s.name, "velocities", velocities, s.driven, s.driven.sizes());
  check_tensor(s.name, "grad_positions", grad_positions, s.driven, s.driven.sizes());
  check_tensor(s.name, "grad_final", grad_final, s.driven, s.state);
  const auto options = s.driven.options();
  Gradients grads{contiguous(grad_positions), contiguous(grad_final), {}, empty_large(s.driven.sizes(), options), {}};
  if (s.steps() == 0) {
    grads.coefficients = at::zeros({kCoefficients, s.driven.size(2)}, options);
    grads.initial = kept_state(grads.final, s.state, options);
  } else {
    grads.initial = at::empty(s.state, options);
    const auto run = s.is_float() ? backward<float> : backward<double>;
    run(s, positions.contiguous(), velocities.contiguous(), grads);
  }
  return {flushed(grads.coefficients), grads.driven, flushed(grads.initial)};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(seqmem, library) {
  library.def(
      "oscillators(Tensor coefficients, Tensor driven, Tensor? initial, Tensor? lengths, bool keeps_velocities) -> (Tensor "
      "positions, Tensor final, Tensor velocities)");
  library.def(
      "oscillators_backward(Tensor? grad_positions, Tensor? grad_final, Tensor coefficients, Tensor driven, Tensor? initial, "
      "Tensor? lengths, Tensor positions, Tensor velocities) -> (Tensor grad_coefficients, Tensor grad_driven, Tensor "
      "grad_initial)");
}

TORCH_LIBRARY_IMPL(seqmem, CPU, library) {
  library.impl("oscillators", oscillators);
  library.impl("oscillators_backward", oscillators_backward);
}

}  // namespace seqmem
