// legs_trapezoidal and its adjoint for one step size, by torch's stable ABI alone: a build for torch 2.11 that later versions load.
//
// The kernels are those of csrc/; only what touches a tensor differs from csrc/updates.cpp.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>
#include <xmmintrin.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <type_traits>
#include <vector>

#include "kernels.h"

namespace {

using seqmem::kernels;
using seqmem::Step;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t kGrain = 32768;

template <typename T>
const seqmem::RowKernels<T>& row_kernels() {
  if constexpr (std::is_same_v<T, float>) {
    return kernels().f32;
  } else {
    return kernels().f64;
  }
}

template <typename T>
void run(bool adjoint, const Tensor& source, const T* input, double dt, Tensor& target, T* grad_input) {
  const int64_t order = source.size(2), rows = source.size(0) * source.size(1), lanes = row_kernels<T>().lanes;
  const T value = T(dt);
  std::vector<T> coefficients(4 * order);
  const double half = double(value) / 2;
  for (int64_t n = 0; n < order; ++n) {
    const double s = std::sqrt(double(2 * n + 1)), d = 1.0 / (1.0 + double(n + 1) * half);
    coefficients[4 * n] = T((1.0 - double(n + 1) * half) * d);
    coefficients[4 * n + 1] = T(double(value) * s * d);
    coefficients[4 * n + 2] = T((1.0 - double(n) * half) * d);
    coefficients[4 * n + 3] = T(-s * d);
  }
  const Step<T> step{order, 0, &value, T(0.5), nullptr, coefficients.data()};
  const T* const from = source.const_data_ptr<T>();
  T* const to = target.mutable_data_ptr<T>();
  const int64_t blocks = (rows + lanes - 1) / lanes, grain = std::max<int64_t>(1, kGrain / (lanes * std::max<int64_t>(1, order)));
  torch::stable::parallel_for(0, blocks, grain, [&](int64_t begin, int64_t end) {
    const unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040);  // flush denormals
    row_kernels<T>().legs(adjoint, step, from, input, to, grad_input, begin * lanes, std::min(end * lanes, rows));
    _mm_setcsr(mode);
  });
}

void check(const Tensor& memory) {
  STD_TORCH_CHECK(memory.dim() == 3, "legs_trapezoidal: got ", memory.dim(), " dimensions, expected (B, M, N)");
  const ScalarType type = memory.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double, "legs_trapezoidal: expected float32 or float64");
}

Tensor update(Tensor memory, Tensor input, double dt) {
  check(memory);
  const Tensor source = torch::stable::contiguous(memory), values = torch::stable::contiguous(input);
  Tensor target = torch::stable::empty_like(source);
  if (memory.scalar_type() == ScalarType::Float) {
    run<float>(false, source, values.const_data_ptr<float>(), dt, target, nullptr);
  } else {
    run<double>(false, source, values.const_data_ptr<double>(), dt, target, nullptr);
  }
  return target;
}

std::tuple<Tensor, Tensor> adjoint(Tensor grad, double dt) {
  check(grad);
  const Tensor source = torch::stable::contiguous(grad);
  Tensor target = torch::stable::empty_like(source);
  Tensor grad_input = torch::stable::new_empty(source, {source.size(0), source.size(1)});
  if (grad.scalar_type() == ScalarType::Float) {
    run<float>(true, source, nullptr, dt, target, grad_input.mutable_data_ptr<float>());
  } else {
    run<double>(true, source, nullptr, dt, target, grad_input.mutable_data_ptr<double>());
  }
  return {target, grad_input};
}

}  // namespace

STABLE_TORCH_LIBRARY(seqmem_stable, library) {
  library.def("legs_trapezoidal(Tensor mem, Tensor input, float dt) -> Tensor");
  library.def("legs_trapezoidal_adjoint(Tensor grad, float dt) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(seqmem_stable, CPU, library) {
  library.impl("legs_trapezoidal", TORCH_BOX(&update));
  library.impl("legs_trapezoidal_adjoint", TORCH_BOX(&adjoint));
}
