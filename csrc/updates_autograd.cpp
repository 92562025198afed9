// Autograd of the memory updates. In C++ because an update runs once per time step: registered from Python, the same formulas
// cost several times the step.
//
// y = update(x, u, dt) is linear in (x, u), and adjoint(g, dt) = (gx, gu) is its transpose: each is the gradient of the other,
// to any order. For the step size, with A, B the transition of the measure:
//   generalised bilinear with alpha a: dy/ddt = (I - a dt A)^-1 (A v + B u), v = (1 - a) x + a y
//                                      g . dy/ddt = w . (A v + B u),         w = (1 - a) g + a gx
//   zero-order hold:                   g . dy/ddt = g . (A y + B u)
// A v + B u is a forward Euler step of length 1 from v, minus v.
#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/lerp.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <string>
#include <tuple>
#include <type_traits>

#include "updates.h"

namespace seqmem {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Type of the step size in a dispatcher call.
template <typename D>
using StepSizeArgument = std::conditional_t<std::is_same_v<D, double>, double, const Tensor&>;

// Dispatcher handles of an update and its adjoint. A backward pass that calls them can itself be differentiated.
template <typename D>
struct Operators {
  using Update = Tensor(const Tensor&, const Tensor&, StepSizeArgument<D>);
  using Adjoint = std::tuple<Tensor, Tensor>(const Tensor&, StepSizeArgument<D>);

  explicit Operators(Method method)
      : update(find<Update>(operator_name(method))), adjoint(find<Adjoint>(adjoint_name(method))) {}

  c10::TypedOperatorHandle<Update> update;
  c10::TypedOperatorHandle<Adjoint> adjoint;

 private:
  template <typename Signature>
  static c10::TypedOperatorHandle<Signature> find(const char* name) {
    const char* overload = std::is_same_v<D, double> ? "" : "tensor";
    return c10::Dispatcher::singleton().findSchemaOrThrow(name, overload).template typed<Signature>();
  }
};

template <typename D>
const Operators<D>& operators(Method method) {
  static const Operators<D> table[] = {
      Operators<D>(Method::legs_euler_forward), Operators<D>(Method::legs_euler_backward),
      Operators<D>(Method::legs_trapezoidal),   Operators<D>(Method::legs_zoh),
      Operators<D>(Method::legt_euler_forward),
  };
  return table[static_cast<int>(method)];
}

// g . d update(x, u, dt) / d dt of each batch element, (B,).
Tensor step_size_gradient(
    Method method, const Tensor& grad, const Tensor& grad_memory, const Tensor& memory, const Tensor& input,
    const Tensor& updated) {
  const bool is_zoh = method == Method::legs_zoh;
  const double alpha = alpha_of(method);
  const Tensor v = is_zoh ? updated : at::lerp(memory, updated, alpha);
  const Tensor w = is_zoh ? grad : at::lerp(grad, grad_memory, alpha);
  const Method euler = method == Method::legt_euler_forward ? Method::legt_euler_forward : Method::legs_euler_forward;
  const Tensor derivative = operators<double>(euler).update.call(v, input, 1.0) - v;
  return (w * derivative).sum({1, 2});
}

// Saves the method and the step size; also `tensors`, if the step size is a tensor that requires a gradient.
void save(AutogradContext* context, Method method, double dt, variable_list) {
  context->saved_data["method"] = static_cast<int64_t>(method);
  context->saved_data["dt"] = dt;
}

void save(AutogradContext* context, Method method, const Tensor& dt, variable_list tensors) {
  context->saved_data["method"] = static_cast<int64_t>(method);
  if (!dt.requires_grad()) tensors.clear();
  tensors.push_back(dt);
  context->save_for_backward(std::move(tensors));
}

template <typename D>
struct Saved {
  Method method;
  D dt;
  variable_list tensors;

  explicit Saved(AutogradContext* context) : method(static_cast<Method>(context->saved_data["method"].toInt())) {
    if constexpr (std::is_same_v<D, double>) {
      dt = context->saved_data["dt"].toDouble();
    } else {
      tensors = context->get_saved_variables();
      dt = tensors.back();
      tensors.pop_back();
    }
  }
};

template <typename D>
struct Update : torch::autograd::Function<Update<D>> {
  static constexpr bool is_traceable = true;

  static Tensor forward(AutogradContext* context, Method method, const Tensor& memory, const Tensor& input, const D& dt) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    Tensor updated = operators<D>(method).update.call(memory, input, dt);
    save(context, method, dt, {memory, input, updated});
    return updated;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const Saved<D> saved(context);
    const auto [grad_memory, grad_input] = operators<D>(saved.method).adjoint.call(grads[0], saved.dt);
    Tensor grad_dt;
    if (!saved.tensors.empty()) {
      grad_dt = step_size_gradient(saved.method, grads[0], grad_memory, saved.tensors[0], saved.tensors[1], saved.tensors[2]);
    }
    return {Tensor(), grad_memory, grad_input, grad_dt};
  }
};

template <typename D>
struct Adjoint : torch::autograd::Function<Adjoint<D>> {
  static constexpr bool is_traceable = true;

  static variable_list forward(AutogradContext* context, Method method, const Tensor& grad, const D& dt) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    const auto [grad_memory, grad_input] = operators<D>(method).adjoint.call(grad, dt);
    save(context, method, dt, {grad, grad_memory});
    return {grad_memory, grad_input};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const Saved<D> saved(context);
    const Tensor updated = operators<D>(saved.method).update.call(grads[0], grads[1], saved.dt);
    Tensor grad_dt;
    if (!saved.tensors.empty()) {
      grad_dt = step_size_gradient(saved.method, saved.tensors[0], saved.tensors[1], grads[0], grads[1], updated);
    }
    return {Tensor(), updated, grad_dt};
  }
};

template <Method method, typename D>
Tensor update(const Tensor& memory, const Tensor& input, StepSizeArgument<D> dt) {
  return Update<D>::apply(method, memory, input, dt);
}

template <Method method, typename D>
std::tuple<Tensor, Tensor> adjoint(const Tensor& grad, StepSizeArgument<D> dt) {
  const variable_list grads = Adjoint<D>::apply(method, grad, dt);
  return {grads[0], grads[1]};
}

template <Method method>
void register_kernels(torch::Library& library) {
  const std::string name = operator_name(method), transpose = adjoint_name(method);
  library.impl(name.c_str(), update<method, double>);
  library.impl((name + ".tensor").c_str(), update<method, Tensor>);
  library.impl(transpose.c_str(), adjoint<method, double>);
  library.impl((transpose + ".tensor").c_str(), adjoint<method, Tensor>);
}

}  // namespace

TORCH_LIBRARY_IMPL(seqmem, Autograd, library) {
  register_kernels<Method::legs_euler_forward>(library);
  register_kernels<Method::legs_euler_backward>(library);
  register_kernels<Method::legs_trapezoidal>(library);
  register_kernels<Method::legs_zoh>(library);
  register_kernels<Method::legt_euler_forward>(library);
}

}  // namespace seqmem
