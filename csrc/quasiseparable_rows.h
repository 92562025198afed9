// The step of quasiseparable.h for rows that lie one after the other, each with a step size of its own.
#pragma once

#include "kernels.h"
#include "quasiseparable.h"
#include "vector.h"

namespace seqmem::SEQMEM_ISA {

// workspace holds quasiseparable_workspace(order).
template <typename T>
static void quasiseparable_rows(
    bool adjoint, const Step<T>& step, const Generators<T>& m, const T* from, const T* with, T* to, T* out, int64_t begin,
    int64_t end, T* workspace) {
  constexpr int width = kLanes<T>;
  T *const x = workspace, *const z = x + m.order * width;
  const EliminationTable<T, true> table(z + m.order * width, m.order);
  const typename VectorOf<T>::index all = Vector<T>{} == Vector<T>{};
  for (int64_t row = begin; row < end; row += width) {
    const int rows = end - row < width ? int(end - row) : width;
    Vector<T> dt, u{};
    for (int j = 0; j < width; ++j) dt[j] = step.dt[(row + (j < rows ? j : rows - 1)) / step.rows_per_dt];
    const StepSize<T, true> sizes = own_step_size<T>(dt, step.implicit);
    table.fill(m, sizes.implicit);
    for (int64_t column = 0; column < m.order; column += width) {
      const int columns = m.order - column < width ? int(m.order - column) : width;
      Vector<T> tile[width];
      load_tile<T>(from + row * m.order, m.order, rows, column, columns, tile);
      for (int c = 0; c < columns; ++c) store<T>(x + (column + c) * width, tile[c]);
    }
    if (adjoint) {
      u = general_adjoint<T, true>(m, table, sizes, x, x, all, z);
      std::memcpy(out + row, &u, rows * sizeof(T));
    } else {
      std::memcpy(&u, with + row, rows * sizeof(T));
      general_step<T, true>(m, table, sizes, x, x, u, all, z);
    }
    for (int64_t column = 0; column < m.order; column += width) {
      const int columns = m.order - column < width ? int(m.order - column) : width;
      Vector<T> tile[width];
      for (int c = 0; c < width; ++c) tile[c] = c < columns ? load<T>(x + (column + c) * width) : Vector<T>{};
      store_tile<T>(to + row * m.order, m.order, rows, column, columns, tile);
    }
  }
}

}  // namespace seqmem::SEQMEM_ISA
