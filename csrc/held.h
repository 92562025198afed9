// Numbers that the kernels read as T, made from float64 tensors.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <vector>

#include "checks.h"
#include "generators.h"

namespace seqmem {

// Keeps what it hands out alive.
class Held {
 public:
  template <typename T>
  const T* numbers(const at::Tensor& given) {
    tensors_.push_back(given.to(c10::CppTypeToScalarType<T>::value).contiguous());
    return readable<T>(tensors_.back());
  }

  // (6, N) float64, see seqmem/ops/transition.py.
  template <typename T>
  Generators<T> generators(const at::Tensor& given) {
    const int64_t order = given.size(1);
    const double *const exact = numbers<double>(given), *const p = exact, *const g = p + 3 * order, *const b = p + 5 * order;
    const double scale = order > 0 ? b[0] / p[0] : 1;
    bool triangular = true;
    for (int64_t n = 0; n < order; ++n) {
      triangular = triangular && g[n] == 0 && std::abs(b[n] - scale * p[n]) <= 1e-14 * std::abs(b[n]);
    }
    const T* const first = numbers<T>(given);
    const auto row = [&](int64_t k) { return first + k * order; };
    return {order, row(0), row(1), row(2), row(3), row(4), row(5), exact, triangular, T(scale)};
  }

  // A matrix (N, N) as the products read it: (panels of `columns` rows, N, columns), zero from the last row on.
  template <typename T>
  const T* panels(const at::Tensor& matrix, int64_t columns) {
    const int64_t order = matrix.size(0), count = (order + columns - 1) / columns;
    at::Tensor padded = at::zeros({count * columns, order}, matrix.options());
    padded.narrow(0, 0, order).copy_(matrix);
    return numbers<T>(padded.view({count, columns, order}).transpose(1, 2));
  }

 private:
  std::vector<at::Tensor> tensors_;
};

}  // namespace seqmem
