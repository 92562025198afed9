// Operators of one memory update, torch.ops.seqmem.*: schemas, checks, and the row kernels run by several threads.
//
// An update is linear in memory and input, so its gradient is its transpose: a second operator, NAME_adjoint.
// updates_autograd.cpp registers the gradients.
#include "updates.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>
#include <torch/version.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <vector>

#include "converted_tensors.h"
#include "kernels.h"
#include "update_rows.h"

// seqmem/ops/extension.py reads this from the file before loading it.
extern "C" __attribute__((visibility("default"), used)) const char seqmem_built_for[] =
    "seqmem built for torch " TORCH_VERSION "\n";

namespace seqmem {
namespace {

using at::Tensor;

// Most numbers of the matrices exp(dt A) in memory at a time.
constexpr int64_t kMaxExponentialNumbers = int64_t(1) << 22;

void check_memory(const char* name, const char* argument, const Tensor& memory) {
  TORCH_CHECK_VALUE(memory.dim() == 3, name, ": ", argument, ": got shape ", memory.sizes(), ", expected (B, M, N)");
  check_floating(name, argument, memory);
}

void check_dt(const char*, double, const Tensor&) {}
void check_dt(const char* name, const Tensor& dt, const Tensor& memory) {
  check_tensor(name, "dt", dt, memory, memory.sizes().slice(0, 1));
}

template <typename T>
void run_method(
    Method method, bool adjoint, const Tensor& source, const T* memory_input, const T* dt, int64_t rows_per_dt, Tensor& target,
    T* grad_input) {
  Step<T> step{source.size(2), rows_per_dt, dt, T(alpha_of(method)), nullptr, nullptr};
  std::vector<T> storage;
  if (method != Method::legt_euler_forward) fill_legs_coefficients(step, storage);
  const StepKernel<T> kernel = method == Method::legt_euler_forward ? row_kernels<T>().legt : row_kernels<T>().legs;
  run_rows<T>(
      kernel, adjoint, step, source.size(0) * source.size(1), source.const_data_ptr<T>(), memory_input,
      target.mutable_data_ptr<T>(), grad_input);
}

template <typename T>
void run_step(
    Method method, bool adjoint, const Tensor& source, const T* memory_input, double dt, Tensor& target, T* grad_input) {
  const T value = T(dt);
  run_method<T>(method, adjoint, source, memory_input, &value, 0, target, grad_input);
}

template <typename T>
void run_step(
    Method method, bool adjoint, const Tensor& source, const T* memory_input, const Tensor& dt, Tensor& target, T* grad_input) {
  const Tensor values = dt.contiguous();
  const int64_t rows_per_dt = std::max<int64_t>(1, source.size(1));
  run_method<T>(method, adjoint, source, memory_input, values.const_data_ptr<T>(), rows_per_dt, target, grad_input);
}

std::vector<double> to_step_sizes(double dt) { return {dt}; }
std::vector<double> to_step_sizes(const Tensor& dt) {
  const Tensor values = dt.to(at::kDouble).contiguous();
  return {values.const_data_ptr<double>(), values.const_data_ptr<double>() + values.numel()};
}

// memory exp(dt A)^T, or memory exp(dt A) for the adjoint, (B, M, N) float64. The matrices are computed in chunks of at most
// kMaxExponentialNumbers numbers.
Tensor times_exponential(const Tensor& memory, const std::vector<double>& step_sizes, bool adjoint) {
  const int64_t order = memory.size(2);
  const int64_t groups = step_sizes.size();
  const Tensor rows = groups == 1 ? memory.reshape({1, memory.size(0) * memory.size(1), order}) : memory;
  Tensor result = at::empty_like(rows, at::MemoryFormat::Contiguous);
  const int64_t matrix_size = std::max<int64_t>(1, order * order);
  const int64_t chunk = std::clamp<int64_t>(kMaxExponentialNumbers / matrix_size, 1, std::max<int64_t>(1, groups));
  const Tensor matrices = at::empty({chunk, order, order}, memory.options());
  double* const data = matrices.mutable_data_ptr<double>();
  for (int64_t start = 0; start < groups; start += chunk) {
    const int64_t count = std::min(chunk, groups - start);
    parallel_for(0, count, std::max<int64_t>(1, kGrain / matrix_size), [&](int64_t begin, int64_t end) {
      std::vector<double> workspace(4 * (order + 2));
      for (int64_t k = begin; k < end; ++k) {
        kernels().legs_exponential(step_sizes[start + k], order, data + k * order * order, workspace.data());
      }
    });
    const Tensor exponentials = matrices.narrow(0, 0, count);
    Tensor products = result.narrow(0, start, count);
    at::bmm_out(products, rows.narrow(0, start, count), adjoint ? exponentials : exponentials.transpose(1, 2));
  }
  return result.view(memory.sizes());
}

// A^-1 B = -e_0 for LegS, so u e_0 is the fixed point of a step with constant input u: y - u e_0 = exp(dt A) (x - u e_0).
template <typename D>
Tensor zero_order_hold(const Tensor& memory, const Tensor& input, const D& dt) {
  if (memory.numel() == 0) return at::empty_like(memory, at::MemoryFormat::Contiguous);
  Tensor deviation = memory.to(at::kDouble, false, true).contiguous();
  const Tensor constant = input.to(at::kDouble);
  deviation.select(2, 0).sub_(constant);
  Tensor result = times_exponential(deviation, to_step_sizes(dt), false);
  result.select(2, 0).add_(constant);
  return flushed(result.to(memory.scalar_type()));
}

template <typename D>
std::tuple<Tensor, Tensor> zero_order_hold_adjoint(const Tensor& grad, const D& dt) {
  Tensor grad_input = at::empty(grad.sizes().slice(0, 2), grad.options());
  if (grad.numel() == 0) return {at::empty_like(grad, at::MemoryFormat::Contiguous), grad_input.zero_()};
  const Tensor grad_f64 = grad.to(at::kDouble).contiguous();
  const Tensor result = times_exponential(grad_f64, to_step_sizes(dt), true);
  grad_input.copy_(grad_f64.select(2, 0) - result.select(2, 0));
  return {flushed(result.to(grad.scalar_type())), flushed(grad_input)};
}

template <Method method, typename D>
Tensor update(const Tensor& memory, const Tensor& input, D dt) {
  constexpr const char* name = operator_name(method);
  check_memory(name, "mem", memory);
  check_tensor(name, "input", input, memory, memory.sizes().slice(0, 2));
  check_dt(name, dt, memory);
  if constexpr (method == Method::legs_zoh) return zero_order_hold(memory, input, dt);
  const Tensor source = memory.contiguous(), memory_input = input.contiguous();
  Tensor target = at::empty_like(source);
  if (memory.scalar_type() == at::kFloat) {
    run_step<float>(method, false, source, memory_input.const_data_ptr<float>(), dt, target, nullptr);
  } else {
    run_step<double>(method, false, source, memory_input.const_data_ptr<double>(), dt, target, nullptr);
  }
  return target;
}

template <Method method, typename D>
std::tuple<Tensor, Tensor> adjoint(const Tensor& grad, D dt) {
  constexpr const char* name = adjoint_name(method);
  check_memory(name, "grad", grad);
  check_dt(name, dt, grad);
  if constexpr (method == Method::legs_zoh) return zero_order_hold_adjoint(grad, dt);
  const Tensor source = grad.contiguous();
  Tensor target = at::empty_like(source);
  Tensor grad_input = at::empty(grad.sizes().slice(0, 2), grad.options());
  if (grad.scalar_type() == at::kFloat) {
    run_step<float>(method, true, source, nullptr, dt, target, grad_input.mutable_data_ptr<float>());
  } else {
    run_step<double>(method, true, source, nullptr, dt, target, grad_input.mutable_data_ptr<double>());
  }
  return {target, grad_input};
}

void check_generators(const char* name, const Tensor& generators, const Tensor& memory) {
  TORCH_CHECK_VALUE(
      generators.sizes() == at::IntArrayRef({6, memory.size(2)}) && generators.scalar_type() == at::kDouble &&
          generators.is_cpu(),
      name, ": generators: got ", generators.sizes(), " ", dtype_name(generators.scalar_type()), " on ", generators.device(),
      ", expected (6, N) float64 on cpu with N = ", memory.size(2));
}

template <typename T>
void run_quasiseparable(
    bool adjoint, const Tensor& source, const T* memory_input, const Tensor& dt, const Tensor& generators, double alpha,
    Tensor& target, T* grad_input) {
  ConvertedTensors converted;
  const Generators<T> m = converted.generators<T>(generators);
  const int64_t rows = source.size(0) * source.size(1), lanes = row_kernels<T>().lanes, blocks = (rows + lanes - 1) / lanes;
  const Step<T> step{m.order, std::max<int64_t>(1, source.size(1)), converted.convert<T>(dt), T(alpha), nullptr, nullptr};
  const int64_t grain = std::max<int64_t>(1, kGrain / (lanes * std::max<int64_t>(1, m.order)));
  const T* const source_data = source.const_data_ptr<T>();
  T* const target_data = target.mutable_data_ptr<T>();
  parallel_for(0, blocks, grain, [&](int64_t begin, int64_t end) {
    std::vector<T> workspace(quasiseparable_workspace(m.order));
    row_kernels<T>().quasiseparable(
        adjoint, step, m, source_data, memory_input, target_data, grad_input, begin * lanes, std::min(end * lanes, rows),
        workspace.data());
  });
}

Tensor quasiseparable_update(
    const Tensor& memory, const Tensor& input, const Tensor& dt, const Tensor& generators, double alpha) {
  constexpr const char* name = "seqmem::quasiseparable_update";
  check_memory(name, "mem", memory);
  check_tensor(name, "input", input, memory, memory.sizes().slice(0, 2));
  check_dt(name, dt, memory);
  check_generators(name, generators, memory);
  const Tensor source = memory.contiguous(), memory_input = input.contiguous();
  Tensor target = at::empty_like(source);
  if (memory.scalar_type() == at::kFloat) {
    run_quasiseparable<float>(false, source, memory_input.const_data_ptr<float>(), dt, generators, alpha, target, nullptr);
  } else {
    run_quasiseparable<double>(false, source, memory_input.const_data_ptr<double>(), dt, generators, alpha, target, nullptr);
  }
  return target;
}

std::tuple<Tensor, Tensor> quasiseparable_adjoint(
    const Tensor& grad, const Tensor& dt, const Tensor& generators, double alpha) {
  constexpr const char* name = "seqmem::quasiseparable_update_adjoint";
  check_memory(name, "grad", grad);
  check_dt(name, dt, grad);
  check_generators(name, generators, grad);
  const Tensor source = grad.contiguous();
  Tensor target = at::empty_like(source);
  Tensor grad_input = at::empty(grad.sizes().slice(0, 2), grad.options());
  if (grad.scalar_type() == at::kFloat) {
    run_quasiseparable<float>(true, source, nullptr, dt, generators, alpha, target, grad_input.mutable_data_ptr<float>());
  } else {
    run_quasiseparable<double>(true, source, nullptr, dt, generators, alpha, target, grad_input.mutable_data_ptr<double>());
  }
  return {target, grad_input};
}

std::string instruction_set() { return kernels().instruction_set; }

template <Method method>
void define_schemas(torch::Library& library) {
  const std::string name = operator_name(method), transpose = adjoint_name(method);
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag};
  // The tensor overloads come first: torch.ops tries overloads in order, and the float overload accepts a one-element tensor.
  library.def((name + ".tensor(Tensor mem, Tensor input, Tensor dt) -> Tensor").c_str(), tags);
  library.def((name + "(Tensor mem, Tensor input, float dt) -> Tensor").c_str(), tags);
  library.def((transpose + ".tensor(Tensor grad, Tensor dt) -> (Tensor, Tensor)").c_str(), tags);
  library.def((transpose + "(Tensor grad, float dt) -> (Tensor, Tensor)").c_str(), tags);
}

template <Method method>
void register_kernels(torch::Library& library) {
  const std::string name = operator_name(method), transpose = adjoint_name(method);
  library.impl(name.c_str(), update<method, double>);
  library.impl((name + ".tensor").c_str(), update<method, const Tensor&>);
  library.impl(transpose.c_str(), adjoint<method, double>);
  library.impl((transpose + ".tensor").c_str(), adjoint<method, const Tensor&>);
}

}  // namespace

TORCH_LIBRARY(seqmem, library) {
  define_schemas<Method::legs_euler_forward>(library);
  define_schemas<Method::legs_euler_backward>(library);
  define_schemas<Method::legs_trapezoidal>(library);
  define_schemas<Method::legs_zoh>(library);
  define_schemas<Method::legt_euler_forward>(library);
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag};
  library.def("quasiseparable_update(Tensor mem, Tensor input, Tensor dt, Tensor generators, float alpha) -> Tensor", tags);
  library.def(
      "quasiseparable_update_adjoint(Tensor grad, Tensor dt, Tensor generators, float alpha) -> (Tensor, Tensor)", tags);
  library.def("instruction_set() -> str", instruction_set);
}

TORCH_LIBRARY_IMPL(seqmem, CPU, library) {
  register_kernels<Method::legs_euler_forward>(library);
  register_kernels<Method::legs_euler_backward>(library);
  register_kernels<Method::legs_trapezoidal>(library);
  register_kernels<Method::legs_zoh>(library);
  register_kernels<Method::legt_euler_forward>(library);
  library.impl("quasiseparable_update", quasiseparable_update);
  library.impl("quasiseparable_update_adjoint", quasiseparable_adjoint);
}

}  // namespace seqmem
