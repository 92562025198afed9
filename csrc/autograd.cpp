// Gradients. In C++ because an update is called once a time step: the same ties made from Python cost several times the step.
//
// y = update(x, u, dt) is linear in (x, u), and adjoint(g, dt) = (gx, gu) is its transpose, so each is the other's gradient, to
// any order. For the step size, with A, B the transition of the method's measure:
//   generalised bilinear, share a implicit: dy/ddt = (I - a dt A)^-1 (A v + B u), v = (1 - a) x + a y
//                                           g . dy/ddt = w . (A v + B u),         w = (1 - a) g + a gx
//   zero-order hold:                        g . dy/ddt = g . (A y + B u)
// and A v + B u is a forward Euler step of length 1 from v, less v.
#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/lerp.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <string>
#include <tuple>
#include <type_traits>

#include "operators.h"

namespace seqmem {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The step size as the dispatcher passes it, and as a Function takes it.
template <typename D>
using Passed = std::conditional_t<std::is_same_v<D, double>, double, const Tensor&>;

// The two operators of a method through the dispatcher, so that a backward pass which calls them can itself be recorded.
template <typename D>
struct Operators {
  using Update = Tensor(const Tensor&, const Tensor&, Passed<D>);
  using Adjoint = std::tuple<Tensor, Tensor>(const Tensor&, Passed<D>);

  explicit Operators(Method method) : update(find<Update>(operator_name(method))), adjoint(find<Adjoint>(adjoint_name(method))) {}

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
      Operators<D>(Method::legs_euler_forward),
      Operators<D>(Method::legs_euler_backward),
      Operators<D>(Method::legs_trapezoidal),
      Operators<D>(Method::legs_zoh),
      Operators<D>(Method::legt_euler_forward),
  };
  return table[static_cast<int>(method)];
}

// g . d update(x, u, dt) / d dt for every batch element, (B,).
Tensor step_gradient(
    Method method, const Tensor& grad, const Tensor& grad_memory, const Tensor& memory, const Tensor& input, const Tensor& updated) {
  const bool hold = method == Method::legs_zoh;
  const double share = implicit_share(method);
  const Tensor at = hold ? updated : at::lerp(memory, updated, share);
  const Tensor weight = hold ? grad : at::lerp(grad, grad_memory, share);
  const Method euler = method == Method::legt_euler_forward ? Method::legt_euler_forward : Method::legs_euler_forward;
  const Tensor slope = operators<double>(euler).update.call(at, input, 1.0) - at;
  return (weight * slope).sum({1, 2});
}

// What the backward pass reads: the method, and the step size; where that is a tensor which wants a gradient, also `others`.
void keep(AutogradContext* context, Method method, double dt, variable_list) {
  context->saved_data["method"] = static_cast<int64_t>(method);
  context->saved_data["dt"] = dt;
}

void keep(AutogradContext* context, Method method, const Tensor& dt, variable_list others) {
  context->saved_data["method"] = static_cast<int64_t>(method);
  if (!dt.requires_grad()) others.clear();
  others.push_back(dt);
  context->save_for_backward(std::move(others));
}

template <typename D>
struct Kept {
  Method method;
  D dt;
  variable_list others;

  explicit Kept(AutogradContext* context) : method(static_cast<Method>(context->saved_data["method"].toInt())) {
    if constexpr (std::is_same_v<D, double>) {
      dt = context->saved_data["dt"].toDouble();
    } else {
      others = context->get_saved_variables();
      dt = others.back();
      others.pop_back();
    }
  }
};

template <typename D>
struct Update : torch::autograd::Function<Update<D>> {
  static constexpr bool is_traceable = true;

  static Tensor forward(AutogradContext* context, Method method, const Tensor& memory, const Tensor& input, const D& dt) {
    const at::AutoDispatchBelowADInplaceOrView below;
    Tensor updated = operators<D>(method).update.call(memory, input, dt);
    keep(context, method, dt, {memory, input, updated});
    return updated;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const Kept<D> kept(context);
    const auto [grad_memory, grad_input] = operators<D>(kept.method).adjoint.call(grads[0], kept.dt);
    Tensor grad_dt;
    if (!kept.others.empty()) {
      grad_dt = step_gradient(kept.method, grads[0], grad_memory, kept.others[0], kept.others[1], kept.others[2]);
    }
    return {Tensor(), grad_memory, grad_input, grad_dt};
  }
};

template <typename D>
struct Adjoint : torch::autograd::Function<Adjoint<D>> {
  static constexpr bool is_traceable = true;

  static variable_list forward(AutogradContext* context, Method method, const Tensor& grad, const D& dt) {
    const at::AutoDispatchBelowADInplaceOrView below;
    const auto [grad_memory, grad_input] = operators<D>(method).adjoint.call(grad, dt);
    keep(context, method, dt, {grad, grad_memory});
    return {grad_memory, grad_input};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const Kept<D> kept(context);
    const Tensor updated = operators<D>(kept.method).update.call(grads[0], grads[1], kept.dt);
    Tensor grad_dt;
    if (!kept.others.empty()) {
      grad_dt = step_gradient(kept.method, kept.others[0], kept.others[1], grads[0], grads[1], updated);
    }
    return {Tensor(), updated, grad_dt};
  }
};

template <Method method, typename D>
Tensor update(const Tensor& memory, const Tensor& input, Passed<D> dt) {
  return Update<D>::apply(method, memory, input, dt);
}

template <Method method, typename D>
std::tuple<Tensor, Tensor> adjoint(const Tensor& grad, Passed<D> dt) {
  const variable_list grads = Adjoint<D>::apply(method, grad, dt);
  return {grads[0], grads[1]};
}

template <Method method>
void implement(torch::Library& library) {
  const std::string name = operator_name(method), transpose = adjoint_name(method);
  library.impl(name.c_str(), update<method, double>);
  library.impl((name + ".tensor").c_str(), update<method, Tensor>);
  library.impl(transpose.c_str(), adjoint<method, double>);
  library.impl((transpose + ".tensor").c_str(), adjoint<method, Tensor>);
}

}  // namespace

TORCH_LIBRARY_IMPL(seqmem, Autograd, library) {
  implement<Method::legs_euler_forward>(library);
  implement<Method::legs_euler_backward>(library);
  implement<Method::legs_trapezoidal>(library);
  implement<Method::legs_zoh>(library);
  implement<Method::legt_euler_forward>(library);
}

}  // namespace seqmem
