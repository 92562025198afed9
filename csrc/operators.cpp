// The operators torch.ops.seqmem.*: schemas, checks, and the row kernels handed out to threads.
//
// Every update is linear in memory and input, so its gradient is its transpose, an operator of its own (NAME_adjoint) which
// autograd.cpp ties to it.
#include "operators.h"

#include <ATen/Parallel.h>
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

#include "held.h"
#include "kernels.h"

// Read from the file, before it is loaded, by seqmem/ops/extension.py.
extern "C" __attribute__((visibility("default"), used)) const char seqmem_built_for[] = "seqmem built for torch " TORCH_VERSION "\n";

namespace seqmem {
namespace {

using at::Tensor;

// Coefficients that are worth a thread.
constexpr int64_t kGrain = 32768;
// Numbers of the matrices exp(dt A) held at one time.
constexpr int64_t kExponentials = int64_t(1) << 22;

void check_memory(const char* name, const char* what, const Tensor& memory) {
  TORCH_CHECK_VALUE(memory.dim() == 3, name, ": ", what, " must have shape (B, M, N), got ", memory.sizes());
  TORCH_CHECK_VALUE(
      memory.scalar_type() == at::kFloat || memory.scalar_type() == at::kDouble, name, ": ", what,
      " must be float32 or float64, got ", memory.scalar_type());
}

void check_like(const char* name, const char* what, const Tensor& given, const Tensor& memory, at::IntArrayRef shape) {
  TORCH_CHECK_VALUE(given.sizes() == shape, name, ": ", what, " must have shape ", shape, ", got ", given.sizes());
  TORCH_CHECK_VALUE(
      given.scalar_type() == memory.scalar_type(), name, ": ", what, " must be ", memory.scalar_type(), " as the memory, got ",
      given.scalar_type());
  TORCH_CHECK_VALUE(given.device() == memory.device(), name, ": ", what, " must be on ", memory.device(), ", got ", given.device());
}

void check_dt(const char*, double, const Tensor&) {}
void check_dt(const char* name, const Tensor& dt, const Tensor& memory) {
  check_like(name, "dt", dt, memory, memory.sizes().slice(0, 1));
}

template <typename T>
const RowKernels<T>& row_kernels() {
  if constexpr (std::is_same_v<T, float>) {
    return kernels().single;
  } else {
    return kernels().twice;
  }
}

// sqrt(2n+1), and the recurrence's coefficients (see legs.h) where all rows share one dt.
template <typename T>
void fill_legs_tables(Step<T>& step, std::vector<T>& storage) {
  const int64_t order = step.order;
  storage.resize(step.rows_per_dt == 0 ? 4 * order : order);
  if (step.rows_per_dt != 0) {
    for (int64_t n = 0; n < order; ++n) storage[n] = T(std::sqrt(double(2 * n + 1)));
    step.scale = storage.data();
    return;
  }
  const double dt = *step.dt, i = dt * double(step.implicit), e = dt - i;
  for (int64_t n = 0; n < order; ++n) {
    const double s = std::sqrt(double(2 * n + 1)), d = 1.0 / (1.0 + double(n + 1) * i);
    storage[4 * n] = T((1.0 - double(n + 1) * e) * d);
    storage[4 * n + 1] = T(dt * s * d);
    storage[4 * n + 2] = T((1.0 - double(n) * i) * d);
    storage[4 * n + 3] = T(-s * d);
  }
  step.table = storage.data();
}

template <typename T>
void run_rows(Method method, bool adjoint, const Tensor& from, const T* with, const T* dt, int64_t rows_per_dt, Tensor& to, T* out) {
  const int64_t rows = from.size(0) * from.size(1);
  Step<T> step{from.size(2), rows_per_dt, dt, T(implicit_share(method)), nullptr, nullptr};
  std::vector<T> storage;
  const RowKernels<T>& table = row_kernels<T>();
  if (method != Method::legt_euler_forward) fill_legs_tables(step, storage);
  const StepKernel<T> kernel = method == Method::legt_euler_forward ? table.legt : table.legs;
  const int64_t lanes = table.lanes, blocks = (rows + lanes - 1) / lanes;
  const int64_t grain = std::max<int64_t>(1, kGrain / (lanes * std::max<int64_t>(1, step.order)));
  const T* const read = from.const_data_ptr<T>();
  T* const write = to.mutable_data_ptr<T>();
  at::parallel_for(0, blocks, grain, [&](int64_t begin, int64_t end) {
    kernel(adjoint, step, read, with, write, out, begin * lanes, std::min(end * lanes, rows));
  });
}

template <typename T>
void run_step(Method method, bool adjoint, const Tensor& from, const T* with, double dt, Tensor& to, T* out) {
  const T value = T(dt);
  run_rows<T>(method, adjoint, from, with, &value, 0, to, out);
}

template <typename T>
void run_step(Method method, bool adjoint, const Tensor& from, const T* with, const Tensor& dt, Tensor& to, T* out) {
  const Tensor values = dt.contiguous();
  run_rows<T>(method, adjoint, from, with, values.const_data_ptr<T>(), std::max<int64_t>(1, from.size(1)), to, out);
}

std::vector<double> step_sizes(double dt) { return {dt}; }
std::vector<double> step_sizes(const Tensor& dt) {
  const Tensor values = dt.to(at::kDouble).contiguous();
  return {values.const_data_ptr<double>(), values.const_data_ptr<double>() + values.numel()};
}

// memory exp(dt A)^T, or memory exp(dt A) for the transpose, (B, M, N) float64. As many matrices are held at a time as fit in
// kExponentials numbers.
Tensor times_exponential(const Tensor& memory, const std::vector<double>& dts, bool adjoint) {
  const int64_t order = memory.size(2);
  const int64_t groups = dts.size();
  const Tensor rows = groups == 1 ? memory.reshape({1, memory.size(0) * memory.size(1), order}) : memory;
  Tensor result = at::empty_like(rows, at::MemoryFormat::Contiguous);
  const int64_t chunk = std::clamp<int64_t>(kExponentials / std::max<int64_t>(1, order * order), 1, std::max<int64_t>(1, groups));
  const Tensor matrices = at::empty({chunk, order, order}, memory.options());
  double* const data = matrices.mutable_data_ptr<double>();
  for (int64_t start = 0; start < groups; start += chunk) {
    const int64_t count = std::min(chunk, groups - start);
    at::parallel_for(0, count, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, order * order)), [&](int64_t begin, int64_t end) {
      std::vector<double> workspace(4 * (order + 2));
      for (int64_t k = begin; k < end; ++k) {
        kernels().legs_exponential(dts[start + k], order, data + k * order * order, workspace.data());
      }
    });
    const Tensor held = matrices.narrow(0, 0, count);
    Tensor part = result.narrow(0, start, count);
    at::bmm_out(part, rows.narrow(0, start, count), adjoint ? held : held.transpose(1, 2));
  }
  return result.view(memory.sizes());
}

// A^-1 B = -e_0 for LegS, so that the input, held over the step, is the fixed point: y - u e_0 = exp(dt A) (x - u e_0).
template <typename D>
Tensor zero_order_hold(const Tensor& memory, const Tensor& input, const D& dt) {
  if (memory.numel() == 0) return at::empty_like(memory, at::MemoryFormat::Contiguous);
  Tensor rest = memory.to(at::kDouble, false, true).contiguous();
  const Tensor held = input.to(at::kDouble);
  rest.select(2, 0).sub_(held);
  Tensor result = times_exponential(rest, step_sizes(dt), false);
  result.select(2, 0).add_(held);
  return result.to(memory.scalar_type());
}

template <typename D>
std::tuple<Tensor, Tensor> zero_order_hold_adjoint(const Tensor& grad, const D& dt) {
  Tensor grad_input = at::empty(grad.sizes().slice(0, 2), grad.options());
  if (grad.numel() == 0) return {at::empty_like(grad, at::MemoryFormat::Contiguous), grad_input.zero_()};
  const Tensor wide = grad.to(at::kDouble).contiguous();
  const Tensor result = times_exponential(wide, step_sizes(dt), true);
  grad_input.copy_(wide.select(2, 0) - result.select(2, 0));
  return {result.to(grad.scalar_type()), grad_input};
}

template <Method method, typename D>
Tensor update(const Tensor& memory, const Tensor& input, D dt) {
  constexpr const char* name = operator_name(method);
  check_memory(name, "mem", memory);
  check_like(name, "input", input, memory, memory.sizes().slice(0, 2));
  check_dt(name, dt, memory);
  if constexpr (method == Method::legs_zoh) return zero_order_hold(memory, input, dt);
  const Tensor from = memory.contiguous(), with = input.contiguous();
  Tensor to = at::empty_like(from);
  if (memory.scalar_type() == at::kFloat) {
    run_step<float>(method, false, from, with.const_data_ptr<float>(), dt, to, nullptr);
  } else {
    run_step<double>(method, false, from, with.const_data_ptr<double>(), dt, to, nullptr);
  }
  return to;
}

template <Method method, typename D>
std::tuple<Tensor, Tensor> adjoint(const Tensor& grad, D dt) {
  constexpr const char* name = adjoint_name(method);
  check_memory(name, "grad", grad);
  check_dt(name, dt, grad);
  if constexpr (method == Method::legs_zoh) return zero_order_hold_adjoint(grad, dt);
  const Tensor from = grad.contiguous();
  Tensor to = at::empty_like(from);
  Tensor out = at::empty(grad.sizes().slice(0, 2), grad.options());
  if (grad.scalar_type() == at::kFloat) {
    run_step<float>(method, true, from, nullptr, dt, to, out.mutable_data_ptr<float>());
  } else {
    run_step<double>(method, true, from, nullptr, dt, to, out.mutable_data_ptr<double>());
  }
  return {to, out};
}

template <typename T>
void approximate(const Tensor& signals, Tensor& memories) {
  const int64_t length = signals.size(1), order = memories.size(1);
  const T* const read = signals.const_data_ptr<T>();
  T* const write = memories.mutable_data_ptr<T>();
  at::parallel_for(0, signals.size(0), 1, [&](int64_t begin, int64_t end) {
    std::vector<T> workspace(legs_approximation_workspace(order));
    for (int64_t row = begin; row < end; ++row) {
      row_kernels<T>().legs_approximation(read + row * length, length, write + row * order, order, workspace.data());
    }
  });
}

// From the gradient of the last memory back through the steps; signals is (length, B).
template <typename T>
void approximate_adjoint(Tensor& memories, Tensor& signals) {
  const int64_t length = signals.size(0), rows = signals.size(1);
  T* const write = signals.mutable_data_ptr<T>();
  for (int64_t t = length - 1; t > 0; --t) {
    run_step<T>(Method::legs_trapezoidal, true, memories, nullptr, 1.0 / double(t), memories, write + t * rows);
  }
  signals.select(0, 0).copy_(memories.select(2, 0).squeeze(1));
}

void check_signal(const char* name, const char* what, const Tensor& given, const char* last) {
  TORCH_CHECK_VALUE(
      (given.dim() == 1 || given.dim() == 2) && given.size(-1) > 0, name, ": ", what, " must have shape (", last, ",) or (B, ", last,
      ") with ", last, " > 0, got ", given.sizes());
  TORCH_CHECK_VALUE(
      given.scalar_type() == at::kFloat || given.scalar_type() == at::kDouble, name, ": ", what,
      " must be float32 or float64, got ", given.scalar_type());
}

Tensor function_approximation(const Tensor& signal, int64_t order) {
  constexpr const char* name = "seqmem::legs_function_approx_trapezoidal";
  check_signal(name, "input", signal, "length");
  TORCH_CHECK_VALUE(order > 0, name, ": memorder must be positive, got ", order);
  const Tensor signals = (signal.dim() == 1 ? signal.unsqueeze(0) : signal).contiguous();
  Tensor memories = at::empty({signals.size(0), order}, signals.options());
  if (signal.scalar_type() == at::kFloat) {
    approximate<float>(signals, memories);
  } else {
    approximate<double>(signals, memories);
  }
  return signal.dim() == 1 ? memories.squeeze(0) : memories;
}

Tensor function_approximation_adjoint(const Tensor& grad, int64_t length) {
  constexpr const char* name = "seqmem::legs_function_approx_trapezoidal_adjoint";
  check_signal(name, "grad", grad, "memorder");
  TORCH_CHECK_VALUE(length > 0, name, ": length must be positive, got ", length);
  if (grad.dim() == 2 && grad.size(0) == 0) return at::empty({0, length}, grad.options());
  Tensor memories = (grad.dim() == 1 ? grad.unsqueeze(0) : grad).unsqueeze(1).clone(at::MemoryFormat::Contiguous);
  Tensor signals = at::empty({length, memories.size(0)}, grad.options());
  if (grad.scalar_type() == at::kFloat) {
    approximate_adjoint<float>(memories, signals);
  } else {
    approximate_adjoint<double>(memories, signals);
  }
  return grad.dim() == 1 ? signals.squeeze(1) : signals.t().contiguous();
}

void check_generators(const char* name, const Tensor& generators, const Tensor& memory) {
  TORCH_CHECK_VALUE(
      generators.sizes() == at::IntArrayRef({6, memory.size(2)}) && generators.scalar_type() == at::kDouble && generators.is_cpu(),
      name, ": generators must be (6, N) float64 with N = ", memory.size(2), ", got ", generators.sizes(), " ",
      generators.scalar_type());
}

template <typename T>
void run_quasiseparable(
    bool adjoint, const Tensor& from, const T* with, const Tensor& dt, const Tensor& generators, double implicit, Tensor& to,
    T* out) {
  Held held;
  const Generators<T> m = held.generators<T>(generators);
  const int64_t rows = from.size(0) * from.size(1), lanes = row_kernels<T>().lanes, blocks = (rows + lanes - 1) / lanes;
  const Step<T> step{
      m.order, std::max<int64_t>(1, from.size(1)), held.numbers<T>(dt), T(implicit), nullptr, nullptr};
  const int64_t grain = std::max<int64_t>(1, kGrain / (lanes * std::max<int64_t>(1, m.order)));
  const T* const read = from.const_data_ptr<T>();
  T* const write = to.mutable_data_ptr<T>();
  at::parallel_for(0, blocks, grain, [&](int64_t begin, int64_t end) {
    std::vector<T> workspace(quasiseparable_workspace(m.order));
    row_kernels<T>().quasiseparable(
        adjoint, step, m, read, with, write, out, begin * lanes, std::min(end * lanes, rows), workspace.data());
  });
}

Tensor quasiseparable_update(
    const Tensor& memory, const Tensor& input, const Tensor& dt, const Tensor& generators, double implicit) {
  constexpr const char* name = "seqmem::quasiseparable_update";
  check_memory(name, "mem", memory);
  check_like(name, "input", input, memory, memory.sizes().slice(0, 2));
  check_dt(name, dt, memory);
  check_generators(name, generators, memory);
  const Tensor from = memory.contiguous(), with = input.contiguous();
  Tensor to = at::empty_like(from);
  if (memory.scalar_type() == at::kFloat) {
    run_quasiseparable<float>(false, from, with.const_data_ptr<float>(), dt, generators, implicit, to, nullptr);
  } else {
    run_quasiseparable<double>(false, from, with.const_data_ptr<double>(), dt, generators, implicit, to, nullptr);
  }
  return to;
}

std::tuple<Tensor, Tensor> quasiseparable_adjoint(
    const Tensor& grad, const Tensor& dt, const Tensor& generators, double implicit) {
  constexpr const char* name = "seqmem::quasiseparable_update_adjoint";
  check_memory(name, "grad", grad);
  check_dt(name, dt, grad);
  check_generators(name, generators, grad);
  const Tensor from = grad.contiguous();
  Tensor to = at::empty_like(from);
  Tensor out = at::empty(grad.sizes().slice(0, 2), grad.options());
  if (grad.scalar_type() == at::kFloat) {
    run_quasiseparable<float>(true, from, nullptr, dt, generators, implicit, to, out.mutable_data_ptr<float>());
  } else {
    run_quasiseparable<double>(true, from, nullptr, dt, generators, implicit, to, out.mutable_data_ptr<double>());
  }
  return {to, out};
}

std::string instruction_set() { return kernels().instruction_set; }

template <Method method>
void define(torch::Library& library) {
  const std::string name = operator_name(method), transpose = adjoint_name(method);
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag};
  // The tensor overloads come first: torch.ops tries them in order, and a tensor of one number would pass for a float.
  library.def((name + ".tensor(Tensor mem, Tensor input, Tensor dt) -> Tensor").c_str(), tags);
  library.def((name + "(Tensor mem, Tensor input, float dt) -> Tensor").c_str(), tags);
  library.def((transpose + ".tensor(Tensor grad, Tensor dt) -> (Tensor, Tensor)").c_str(), tags);
  library.def((transpose + "(Tensor grad, float dt) -> (Tensor, Tensor)").c_str(), tags);
}

template <Method method>
void implement(torch::Library& library) {
  const std::string name = operator_name(method), transpose = adjoint_name(method);
  library.impl(name.c_str(), update<method, double>);
  library.impl((name + ".tensor").c_str(), update<method, const Tensor&>);
  library.impl(transpose.c_str(), adjoint<method, double>);
  library.impl((transpose + ".tensor").c_str(), adjoint<method, const Tensor&>);
}

}  // namespace

TORCH_LIBRARY(seqmem, library) {
  define<Method::legs_euler_forward>(library);
  define<Method::legs_euler_backward>(library);
  define<Method::legs_trapezoidal>(library);
  define<Method::legs_zoh>(library);
  define<Method::legt_euler_forward>(library);
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag};
  library.def("legs_function_approx_trapezoidal(Tensor input, SymInt memorder) -> Tensor", tags);
  library.def("legs_function_approx_trapezoidal_adjoint(Tensor grad, SymInt length) -> Tensor", tags);
  library.def("quasiseparable_update(Tensor mem, Tensor input, Tensor dt, Tensor generators, float implicit) -> Tensor", tags);
  library.def("quasiseparable_update_adjoint(Tensor grad, Tensor dt, Tensor generators, float implicit) -> (Tensor, Tensor)", tags);
  library.def("instruction_set() -> str", instruction_set);
}

TORCH_LIBRARY_IMPL(seqmem, CPU, library) {
  implement<Method::legs_euler_forward>(library);
  implement<Method::legs_euler_backward>(library);
  implement<Method::legs_trapezoidal>(library);
  implement<Method::legs_zoh>(library);
  implement<Method::legt_euler_forward>(library);
  library.impl("quasiseparable_update", quasiseparable_update);
  library.impl("quasiseparable_update_adjoint", quasiseparable_adjoint);
  library.impl("legs_function_approx_trapezoidal", function_approximation);
  library.impl("legs_function_approx_trapezoidal_adjoint", function_approximation_adjoint);
}

}  // namespace seqmem
