// The operator torch.ops.seqmem.causal_convolution and its backward operator: checks, and the loops run by several threads.
// seqmem/ops/causal_convolution.py registers the gradient.
#include "causal_convolution.h"

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
CausalConvolutionTable causal_convolution_table();
}
#if defined(__x86_64__) && !defined(__clang__)
namespace avx2 {
CausalConvolutionTable causal_convolution_table();
}
namespace avx512 {
CausalConvolutionTable causal_convolution_table();
}
#endif

namespace {

using at::Tensor;

const CausalConvolutionTable& convolution_kernels() {
  static const CausalConvolutionTable selected = [] {
#if defined(__x86_64__) && !defined(__clang__)
    const std::string instruction_set = kernels().instruction_set;
    if (instruction_set == "avx512") return avx512::causal_convolution_table();
    if (instruction_set == "avx2") return avx2::causal_convolution_table();
#endif
    return baseline::causal_convolution_table();
  }();
  return selected;
}

template <typename T>
CausalConvolutionLoop<T> loop_of(bool backward) {
  const CausalConvolutionTable& table = convolution_kernels();
  if constexpr (std::is_same_v<T, float>) {
    return backward ? table.backward_f32 : table.forward_f32;
  } else {
    return backward ? table.backward_f64 : table.forward_f64;
  }
}

struct Arguments {
  const char* name;
  Tensor inputs, weight;
  OptionalTensor bias, initial, lengths, restarts;

  int64_t batch() const { return inputs.size(0); }
  int64_t steps() const { return inputs.size(1); }
  int64_t channels() const { return inputs.size(2); }
  int64_t taps() const { return weight.size(1); }
  std::vector<int64_t> state() const { return {batch(), taps() - 1, channels()}; }
};

void check(Arguments& a) {
  const char* const name = a.name;
  TORCH_CHECK_VALUE(a.inputs.dim() == 3, name, ": inputs: got shape ", a.inputs.sizes(), ", expected (B, T, C)");
  TORCH_CHECK_VALUE(
      a.weight.dim() == 2 && a.weight.size(1) > 0, name, ": weight: got shape ", a.weight.sizes(),
      ", expected (C, k) with k > 0");
  check_floating(name, "inputs", a.inputs);
  check_sizes(name, a.inputs);
  check_sizes(name, a.weight);
  check_tensor(name, "weight", a.weight, a.inputs, {a.channels(), a.taps()});
  check_tensor(name, "bias", a.bias, a.inputs, {a.channels()});
  check_tensor(name, "initial", a.initial, a.inputs, a.state());
  check_lengths(name, a.lengths, a.batch(), a.steps());
  if (a.restarts) {
    TORCH_CHECK_VALUE(
        a.restarts->sizes() == at::IntArrayRef({a.batch(), a.steps()}) && a.restarts->scalar_type() == at::kBool, name,
        ": restarts: got ", a.restarts->sizes(), " ", dtype_name(a.restarts->scalar_type()), ", expected (B, T) bool");
    a.restarts = a.restarts->contiguous();
  }
  a.inputs = with_contiguous_rows(a.inputs);
  a.weight = a.weight.contiguous();
  a.bias = contiguous(a.bias);
  a.initial = contiguous(a.initial);
}

// Arguments of the loops, with the parameters in a tensor of its own: taps and bias, padded with zeros.
template <typename T>
CausalConvolution<T> loop_arguments(const Arguments& a, const Tensor& result, Tensor& parameters) {
  CausalConvolution<T> s{};
  s.batch = a.batch();
  s.steps = a.steps();
  s.channels = a.channels();
  s.taps = a.taps();
  s.streams = can_stream(result);
  s.lengths = optional_data<int64_t>(a.lengths);
  s.restarts = optional_data<bool>(a.restarts);
  s.inputs = const_data<T>(a.inputs);
  s.row_stride = a.inputs.stride(0);
  s.step_stride = a.inputs.stride(1);
  s.initial = optional_data<T>(a.initial);
  const int64_t columns = s.padded_channels();
  parameters = at::zeros({s.taps + 1, columns}, a.inputs.options());
  T* const rows = mutable_data<T>(parameters);
  const T *const weight = const_data<T>(a.weight), *const bias = optional_data<T>(a.bias);
  for (int64_t c = 0; c < s.channels; ++c) {
    for (int64_t k = 0; k < s.taps; ++k) rows[k * columns + c] = weight[c * s.taps + k];
    if (bias != nullptr) rows[s.taps * columns + c] = bias[c];
  }
  s.weight = rows;
  s.bias = rows + s.taps * columns;
  return s;
}

template <typename T>
void run_tasks(const CausalConvolution<T>& s, bool backward) {
  const CausalConvolutionLoop<T> loop = loop_of<T>(backward);
  parallel_for(0, s.batch * s.groups(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) loop(s, task / s.groups(), task % s.groups());
  });
}

template <typename T>
void run_forward(const Arguments& a, const Tensor& outputs, const Tensor& state) {
  Tensor parameters;
  CausalConvolution<T> s = loop_arguments<T>(a, outputs, parameters);
  s.outputs = mutable_data<T>(outputs);
  s.final = mutable_data<T>(state);
  run_tasks(s, false);
}

std::tuple<Tensor, Tensor> causal_convolution(
    const Tensor& inputs, const Tensor& weight, const OptionalTensor& bias, const OptionalTensor& initial,
    const OptionalTensor& lengths, const OptionalTensor& restarts) {
  Arguments a{"seqmem::causal_convolution", inputs, weight, bias, initial, lengths, restarts};
  check(a);
  const at::AutoDispatchBelowADInplaceOrView guard;
  const Tensor outputs = empty_large(inputs.sizes(), inputs.options()), state = at::empty(a.state(), inputs.options());
  inputs.scalar_type() == at::kFloat ? run_forward<float>(a, outputs, state) : run_forward<double>(a, outputs, state);
  return {outputs, flushed(state)};
}

struct Gradients {
  Tensor inputs, weight, bias, initial;
};

template <typename T>
void run_backward(
    const Arguments& a, const OptionalTensor& grad_outputs, const OptionalTensor& grad_state, const Gradients& g) {
  Tensor parameters;
  CausalConvolution<T> s = loop_arguments<T>(a, g.inputs, parameters);
  if (grad_outputs) {
    s.grad_outputs = const_data<T>(*grad_outputs);
    s.grad_row_stride = grad_outputs->stride(0);
    s.grad_step_stride = grad_outputs->stride(1);
  }
  s.grad_final = optional_data<T>(grad_state);
  s.grad_inputs = mutable_data<T>(g.inputs);
  s.grad_initial = a.initial ? mutable_data<T>(g.initial) : nullptr;
  const int64_t columns = s.padded_channels();
  const Tensor parts = at::empty({s.batch, s.taps + 1, columns}, a.inputs.options());
  s.grad_parameters = mutable_data<T>(parts);
  run_tasks(s, true);
  const T* const from = const_data<T>(parts);
  T *const grad_weight = mutable_data<T>(g.weight), *const grad_bias = mutable_data<T>(g.bias);
  parallel_for(0, s.channels, 1024, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      for (int64_t k = 0; k <= s.taps; ++k) {
        double sum = 0;
        for (int64_t row = 0; row < s.batch; ++row) sum += double(from[(row * (s.taps + 1) + k) * columns + c]);
        (k < s.taps ? grad_weight[c * s.taps + k] : grad_bias[c]) = T(sum);
      }
    }
  });
}

std::vector<Tensor> causal_convolution_backward(
    const OptionalTensor& grad_outputs, const OptionalTensor& grad_state, const Tensor& inputs, const Tensor& weight,
    const OptionalTensor& bias, const OptionalTensor& initial, const OptionalTensor& lengths, const OptionalTensor& restarts) {
  Arguments a{"seqmem::causal_convolution_backward", inputs, weight, bias, initial, lengths, restarts};
  check(a);
  const at::AutoDispatchBelowADInplaceOrView guard;
  check_tensor(a.name, "grad_outputs", grad_outputs, inputs, inputs.sizes());
  check_tensor(a.name, "grad_state", grad_state, inputs, a.state());
  const auto options = inputs.options();
  const OptionalTensor outputs = with_contiguous_rows(grad_outputs), state = contiguous(grad_state);
  const Gradients g{
      empty_large(inputs.sizes(), options), at::empty(weight.sizes(), options), at::empty({a.channels()}, options),
      initial ? at::empty(a.state(), options) : at::empty({0}, options)};
  inputs.scalar_type() == at::kFloat ? run_backward<float>(a, outputs, state, g) : run_backward<double>(a, outputs, state, g);
  return {g.inputs, g.weight, bias ? g.bias : at::empty({0}, options), flushed(g.initial)};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(seqmem, library) {
  const std::string arguments =
      "Tensor inputs, Tensor weight, Tensor? bias, Tensor? initial, Tensor? lengths, Tensor? restarts";
  library.def(("causal_convolution(" + arguments + ") -> (Tensor outputs, Tensor state)").c_str());
  library.def(
      ("causal_convolution_backward(Tensor? grad_outputs, Tensor? grad_state, " + arguments + ") -> Tensor[]").c_str());
}

TORCH_LIBRARY_IMPL(seqmem, CPU, library) {
  library.impl("causal_convolution", causal_convolution);
  library.impl("causal_convolution_backward", causal_convolution_backward);
}

}  // namespace seqmem
