// float64 tensors converted to the type that the kernels compute in.
#pragma once

#include "shared.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <vector>

#include "checks.h"
#include "generators.h"

namespace seqmem {

// Owns the converted tensors: the returned pointers are valid during its lifetime.
class ConvertedTensors {
 public:
  template <typename T>
  const T* convert(const at::Tensor& tensor) {
    tensors_.push_back(tensor.to(c10::CppTypeToScalarType<T>::value).contiguous());
    return const_data<T>(tensors_.back());
  }

  // Generators from (6, N) float64, see seqmem/ops/transition.py.
  template <typename T>
  Generators<T> generators(const at::Tensor& tensor) {
    const int64_t order = tensor.size(1);
    const double *const f64 = convert<double>(tensor), *const p = f64, *const g = p + 3 * order, *const b = p + 5 * order;
    const double scale = order > 0 ? b[0] / p[0] : 1;
    bool triangular = true;
    for (int64_t n = 0; n < order; ++n) {
      triangular = triangular && g[n] == 0 && std::abs(b[n] - scale * p[n]) <= 1e-14 * std::abs(b[n]);
    }
    const T* const rows = convert<T>(tensor);
    const auto row = [&](int64_t k) { return rows + k * order; };
    return {order, row(0), row(1), row(2), row(3), row(4), row(5), f64, triangular, T(scale)};
  }

  // A matrix (N, N) packed for the products: (panels of `columns` rows, N, columns), zero beyond the last row.
  template <typename T>
  const T* packed_panels(const at::Tensor& matrix, int64_t columns) {
    const int64_t order = matrix.size(0), count = (order + columns - 1) / columns;
    at::Tensor padded = at::zeros({count * columns, order}, matrix.options());
    padded.narrow(0, 0, order).copy_(matrix);
    return convert<T>(padded.view({count, columns, order}).transpose(1, 2));
  }

 private:
  std::vector<at::Tensor> tensors_;
};

}  // namespace seqmem
