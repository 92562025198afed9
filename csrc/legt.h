// LegT in the normalisation of the LMU, c' = A c + B f with A_nk = (2n+1) {-1 (n < k), (-1)^(n-k+1) (n >= k)} and
// B_n = (2n+1) (-1)^n, by forward Euler:
//   y_n = x_n + dt (2n+1) (-sum_k x_k + (-1)^n u + 2 sum {x_k : k < n, n - k odd})
// Two running sums, over even and over odd k, swap roles at every n.
#pragma once

#include "kernels.h"
#include "vector.h"

namespace seqmem::SEQMEM_ISA {

template <typename T, bool adjoint>
static void legt_rows(
    const Step<T>& step, const T* source, const T* memory_input, T* target, T* grad_input, int64_t begin, int64_t end) {
  constexpr int width = kLanes<T>;
  const int64_t order = step.order;
  for (int64_t row = begin; row < end; row += width) {
    const int rows = end - row < width ? int(end - row) : width;
    Vector<T> dt;
    for (int j = 0; j < width; ++j) {
      dt[j] = step.dt[step.rows_per_dt == 0 ? 0 : (row + (j < rows ? j : rows - 1)) / step.rows_per_dt];
    }

    Vector<T> tile[width];
    Vector<T> even{}, odd{};  // sums of x, or of (2n+1) times the gradient
    for (int64_t column = 0; column < order; column += width) {
      const int columns = order - column < width ? int(order - column) : width;
      load_tile<T>(source + row * order, order, rows, column, columns, tile);
      for (int c = 0; c < columns; c += 2) even += adjoint ? T(2 * (column + c) + 1) * tile[c] : tile[c];
      for (int c = 1; c < columns; c += 2) odd += adjoint ? T(2 * (column + c) + 1) * tile[c] : tile[c];
    }

    Vector<T> current = -(even + odd), other = current;
    if (!adjoint) {
      Vector<T> u{};
      std::memcpy(&u, memory_input + row, rows * sizeof(T));
      current += u;
      other -= u;
    }
    const int64_t tiles = (order + width - 1) / width;
    for (int64_t k = 0; k < tiles; ++k) {
      const int64_t column = (adjoint ? tiles - 1 - k : k) * width;
      const int columns = order - column < width ? int(order - column) : width;
      load_tile<T>(source + row * order, order, rows, column, columns, tile);
      for (int c = 0; c < columns; ++c) {
        const int index = adjoint ? columns - 1 - c : c;
        const T weight = T(2 * (column + index) + 1);
        const Vector<T> x = tile[index];
        tile[index] = x + (adjoint ? dt : weight * dt) * current;
        const Vector<T> next = other + (adjoint ? T(2) * weight : T(2)) * x;
        other = current;
        current = next;
      }
      store_tile<T>(target + row * order, order, rows, column, columns, tile);
    }
    if (adjoint) {
      const Vector<T> gradient = dt * (even - odd);
      std::memcpy(grad_input + row, &gradient, rows * sizeof(T));
    }
  }
}

template <typename T>
static void legt_step(
    bool adjoint, const Step<T>& step, const T* source, const T* memory_input, T* target, T* grad_input, int64_t begin,
    int64_t end) {
  (adjoint ? legt_rows<T, true> : legt_rows<T, false>)(step, source, memory_input, target, grad_input, begin, end);
}

}  // namespace seqmem::SEQMEM_ISA
