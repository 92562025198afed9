// The operator torch.ops.seqmem.legs_projection: LegS coefficients of a signal, which may come in pieces. Also
// legs_function_approx_trapezoidal, those of a whole signal by bilinear steps.
//
// Both are linear, so each has its transpose as a second operator, NAME_adjoint. seqmem/ops/legs_projection.py and
// seqmem/ops/extension.py register the gradients.
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "checks.h"
#include "denormals.h"
#include "kernels.h"
#include "update_rows.h"

namespace seqmem {
namespace {

using at::Tensor;

// Step numbers are exact in float64 up to here.
constexpr int64_t kMaxSteps = int64_t(1) << 53;

// The wavefront in float32 is exact in t up to here: it counts 2t + j by ones, lane j at most kMaxWaveVectors * kMaxLanes.
constexpr int64_t kMaxFloatSteps = (int64_t(1) << 23) - kMaxWaveVectors * kMaxLanes;

// Settings of a call; no `alpha` stands for zero-order hold.
Projection checked_projection(
    const char* name, int64_t order, int64_t start, int64_t length, std::optional<double> alpha, int64_t every) {
  TORCH_CHECK_VALUE(
      start >= 0 && start < kMaxSteps - length, name, ": start: got ", start, ", expected 0 to 2^53 - T with T = ", length);
  TORCH_CHECK_VALUE(every >= 0, name, ": every: got ", every, ", expected 0 or above");
  TORCH_CHECK_VALUE(!alpha || (*alpha >= 0 && *alpha <= 1), name, ": alpha: got ", alpha.value_or(0), ", expected 0 to 1");
  return {order, start, length, every, alpha.value_or(0)};
}

// Zero-order hold and late steps of float32 are computed in float64.
at::ScalarType computed_type(const Projection& p, at::ScalarType type, bool is_hold) {
  return is_hold || p.start + p.length > kMaxFloatSteps ? at::kDouble : type;
}

// Advances memories (B, N) over signals (B, T) and fills `kept` (B, K, N).
template <typename T>
void project_rows(const Projection& p, const Tensor& signals, const Tensor& memories, const Tensor& kept) {
  const T* const signal = const_data<T>(signals);
  T *const memory = mutable_data<T>(memories), *const to = mutable_data<T>(kept);
  parallel_for(0, signals.size(0), 1, [&](int64_t begin, int64_t end) {
    std::vector<T> workspace(legs_projection_workspace(p.order));
    for (int64_t row = begin; row < end; ++row) {
      row_kernels<T>().legs_projection(
          p, signal + row * p.length, memory + row * p.order, to + row * p.kept() * p.order, workspace.data());
    }
  });
}

void hold_rows(const Projection& p, const Tensor& signals, const Tensor& memories, const Tensor& kept) {
  const double* const signal = const_data<double>(signals);
  double *const memory = mutable_data<double>(memories), *const to = mutable_data<double>(kept);
  parallel_for(0, signals.size(0), 1, [&](int64_t begin, int64_t end) {
    std::vector<double> workspace(hold_workspace(p.order));
    kernels().hold_projection(
        p, end - begin, signal + begin * p.length, memory + begin * p.order, to + begin * p.kept() * p.order,
        workspace.data());
  });
}

// Takes gradients back through the steps: of `kept` (B, K, N) and of the last memories (B, N), which become those of the
// first, to those of the signals (T, B).
template <typename T>
void project_rows_adjoint(const Projection& p, const Tensor& grad_kept, Tensor memories, const Tensor& signals) {
  const int64_t rows = memories.size(0);
  if (rows == 0) return;
  T *const memory = mutable_data<T>(memories), *const grad = mutable_data<T>(signals);
  std::vector<T> storage;
  for (int64_t t = p.start + p.length - 1, k = p.kept(); t >= p.start; --t) {
    if (p.keeps(t)) memories.add_(grad_kept.select(1, --k));
    if (t == 0) {
      flushed(signals.select(0, 0).copy_(memories.select(1, 0)));
      memories.zero_();
      break;
    }
    const T dt = T(1.0 / double(t));
    Step<T> step{p.order, 0, &dt, T(p.alpha), nullptr, nullptr};
    fill_legs_coefficients(step, storage);
    run_rows<T>(row_kernels<T>().legs, true, step, rows, memory, nullptr, memory, grad + (t - p.start) * rows);
  }
}

void hold_rows_adjoint(const Projection& p, const Tensor& grad_kept, const Tensor& memories, const Tensor& signals) {
  const double* const from = const_data<double>(grad_kept);
  double *const memory = mutable_data<double>(memories), *const grad = mutable_data<double>(signals);
  parallel_for(0, memories.size(0), 1, [&](int64_t begin, int64_t end) {
    std::vector<double> workspace(hold_workspace(p.order));
    kernels().hold_projection_adjoint(
        p, end - begin, from + begin * p.kept() * p.order, memory + begin * p.order, grad + begin * p.length,
        workspace.data());
  });
}

Tensor contiguous_copy(const Tensor& tensor, at::ScalarType type) {
  return tensor.to(type).clone(at::MemoryFormat::Contiguous);
}

std::tuple<Tensor, Tensor> legs_projection(
    const Tensor& signal, const Tensor& memory, int64_t start, std::optional<double> alpha, int64_t every) {
  constexpr const char* name = "seqmem::legs_projection";
  TORCH_CHECK_VALUE(
      signal.dim() == 2 && signal.size(1) > 0, name, ": signal: got shape ", signal.sizes(), ", expected (B, T) with T > 0");
  check_floating(name, "signal", signal);
  TORCH_CHECK_VALUE(
      memory.dim() == 2 && memory.size(1) > 0, name, ": memory: got shape ", memory.sizes(), ", expected (B, N) with N > 0");
  check_tensor(name, "memory", memory, signal, {signal.size(0), memory.size(1)});
  const Projection p = checked_projection(name, memory.size(1), start, signal.size(1), alpha, every);
  const at::ScalarType type = signal.scalar_type(), computed = computed_type(p, type, !alpha);
  const Tensor signals = signal.to(computed).contiguous(), memories = contiguous_copy(memory, computed);
  const Tensor kept = at::empty({signal.size(0), p.kept(), p.order}, signals.options());
  if (!alpha) {
    hold_rows(p, signals, memories, kept);
  } else if (computed == at::kFloat) {
    project_rows<float>(p, signals, memories, kept);
  } else {
    project_rows<double>(p, signals, memories, kept);
  }
  if (type == computed) return {kept, memories};
  return {flushed(kept.to(type)), flushed(memories.to(type))};
}

std::tuple<Tensor, Tensor> legs_projection_adjoint(
    const Tensor& grad_kept, const Tensor& grad_memory, int64_t length, int64_t start, std::optional<double> alpha,
    int64_t every) {
  constexpr const char* name = "seqmem::legs_projection_adjoint";
  TORCH_CHECK_VALUE(
      grad_memory.dim() == 2 && grad_memory.size(1) > 0, name, ": grad_memory: got shape ", grad_memory.sizes(),
      ", expected (B, N) with N > 0");
  check_floating(name, "grad_memory", grad_memory);
  TORCH_CHECK_VALUE(length > 0 && length < kMaxSteps, name, ": length: got ", length, ", expected above 0");
  const int64_t rows = grad_memory.size(0);
  const Projection p = checked_projection(name, grad_memory.size(1), start, length, alpha, every);
  check_tensor(name, "grad_kept", grad_kept, grad_memory, {rows, p.kept(), p.order});
  const at::ScalarType type = grad_memory.scalar_type(), computed = computed_type(p, type, !alpha);
  const Tensor kept = grad_kept.to(computed).contiguous(), memories = contiguous_copy(grad_memory, computed);
  Tensor signals = at::empty({alpha ? length : rows, alpha ? rows : length}, memories.options());
  if (!alpha) {
    hold_rows_adjoint(p, kept, memories, signals);
  } else if (computed == at::kFloat) {
    project_rows_adjoint<float>(p, kept, memories, signals);
  } else {
    project_rows_adjoint<double>(p, kept, memories, signals);
  }
  if (alpha) signals = signals.t().contiguous();
  if (type == computed) return {signals, memories};
  return {flushed(signals.to(type)), flushed(memories.to(type))};
}

void check_signal(const char* name, const char* argument, const Tensor& tensor, const char* last) {
  TORCH_CHECK_VALUE(
      (tensor.dim() == 1 || tensor.dim() == 2) && tensor.size(-1) > 0, name, ": ", argument, ": got shape ", tensor.sizes(),
      ", expected (", last, ",) or (B, ", last, ") with ", last, " > 0");
  check_floating(name, argument, tensor);
}

Tensor function_approximation(const Tensor& signal, int64_t order) {
  constexpr const char* name = "seqmem::legs_function_approx_trapezoidal";
  check_signal(name, "input", signal, "length");
  TORCH_CHECK_VALUE(order > 0, name, ": memorder: got ", order, ", expected above 0");
  const Tensor signals = signal.dim() == 1 ? signal.unsqueeze(0) : signal;
  const Tensor memory = at::zeros({signals.size(0), order}, signal.options());
  const Tensor memories = std::get<1>(legs_projection(signals, memory, 0, 0.5, 0));
  return signal.dim() == 1 ? memories.squeeze(0) : memories;
}

Tensor function_approximation_adjoint(const Tensor& grad, int64_t length) {
  constexpr const char* name = "seqmem::legs_function_approx_trapezoidal_adjoint";
  check_signal(name, "grad", grad, "memorder");
  TORCH_CHECK_VALUE(length > 0, name, ": length: got ", length, ", expected above 0");
  const Tensor memories = grad.dim() == 1 ? grad.unsqueeze(0) : grad;
  const Tensor none = at::empty({memories.size(0), 0, memories.size(1)}, grad.options());
  const Tensor signals = std::get<0>(legs_projection_adjoint(none, memories, length, 0, 0.5, 0));
  return grad.dim() == 1 ? signals.squeeze(0) : signals;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(seqmem, library) {
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag};
  library.def(
      "legs_projection(Tensor signal, Tensor memory, SymInt start, float? alpha, SymInt every) -> (Tensor kept, Tensor "
      "memory_after)",
      tags);
  library.def(
      "legs_projection_adjoint(Tensor grad_kept, Tensor grad_memory, SymInt length, SymInt start, float? alpha, SymInt every) "
      "-> (Tensor grad_signal, Tensor grad_memory_before)",
      tags);
  library.def("legs_function_approx_trapezoidal(Tensor input, SymInt memorder) -> Tensor", tags);
  library.def("legs_function_approx_trapezoidal_adjoint(Tensor grad, SymInt length) -> Tensor", tags);
}

TORCH_LIBRARY_IMPL(seqmem, CPU, library) {
  library.impl("legs_projection", legs_projection);
  library.impl("legs_projection_adjoint", legs_projection_adjoint);
  library.impl("legs_function_approx_trapezoidal", function_approximation);
  library.impl("legs_function_approx_trapezoidal_adjoint", function_approximation_adjoint);
}

}  // namespace seqmem
