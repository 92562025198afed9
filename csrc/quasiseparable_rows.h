// The step of quasiseparable.h for contiguous rows with one step size per row.
#pragma once

#include "kernels.h"
#include "quasiseparable.h"
#include "vector.h"

namespace seqmem::SEQMEM_ISA {

// `workspace` has quasiseparable_workspace(order) numbers.
template <typename T>
static void quasiseparable_rows(
    bool adjoint, const Step<T>& step, const Generators<T>& m, const T* source, const T* memory_input, T* target, T* grad_input,
    int64_t begin, int64_t end, T* workspace) {
  constexpr int width = kLanes<T>;
  T *const x = workspace, *const z = x + m.order * width;
  const EliminationTable<T, true> table(z + m.order * width, m.order);
  const typename VectorOf<T>::index all = Vector<T>{} == Vector<T>{};
  for (int64_t row = begin; row < end; row += width) {
    const int rows = end - row < width ? int(end - row) : width;
    Vector<T> dt, u{};
    for (int j = 0; j < width; ++j) dt[j] = step.dt[(row + (j < rows ? j : rows - 1)) / step.rows_per_dt];
    const StepSize<T, true> sizes = per_row_step_size<T>(dt, step.alpha);
    table.fill(m, sizes.implicit_dt);
    for (int64_t column = 0; column < m.order; column += width) {
      const int columns = m.order - column < width ? int(m.order - column) : width;
      Vector<T> tile[width];
      load_tile<T>(source + row * m.order, m.order, rows, column, columns, tile);
      for (int c = 0; c < columns; ++c) store<T>(x + (column + c) * width, tile[c]);
    }
    if (adjoint) {
      u = general_adjoint<T, true>(m, table, sizes, x, x, all, z);
      std::memcpy(grad_input + row, &u, rows * sizeof(T));
    } else {
      std::memcpy(&u, memory_input + row, rows * sizeof(T));
      general_step<T, true>(m, table, sizes, x, x, u, all, z);
    }
    for (int64_t column = 0; column < m.order; column += width) {
      const int columns = m.order - column < width ? int(m.order - column) : width;
      Vector<T> tile[width];
      for (int c = 0; c < width; ++c) tile[c] = c < columns ? load<T>(x + (column + c) * width) : Vector<T>{};
      store_tile<T>(target + row * m.order, m.order, rows, column, columns, tile);
    }
  }
}

}  // namespace seqmem::SEQMEM_ISA
