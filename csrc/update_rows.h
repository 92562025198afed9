// Row kernels of the memory updates, run by several threads.
#pragma once

#include "shared.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "denormals.h"
#include "kernels.h"

namespace seqmem {

// Fewest coefficients per thread.
constexpr int64_t kGrain = 32768;

template <typename T>
const RowKernels<T>& row_kernels() {
  if constexpr (std::is_same_v<T, float>) {
    return kernels().f32;
  } else {
    return kernels().f64;
  }
}

// Fills the coefficients of the recurrence (see legs.h) if all rows share one dt, else sqrt(2n+1).
template <typename T>
void fill_legs_coefficients(Step<T>& step, std::vector<T>& storage) {
  const int64_t order = step.order;
  storage.resize(step.rows_per_dt == 0 ? 4 * order : order);
  if (step.rows_per_dt != 0) {
    for (int64_t n = 0; n < order; ++n) storage[n] = T(std::sqrt(double(2 * n + 1)));
    step.scale = storage.data();
    return;
  }
  const double dt = *step.dt, implicit_dt = dt * double(step.alpha), explicit_dt = dt - implicit_dt;
  for (int64_t n = 0; n < order; ++n) {
    const double s = std::sqrt(double(2 * n + 1)), d = 1.0 / (1.0 + double(n + 1) * implicit_dt);
    storage[4 * n] = T((1.0 - double(n + 1) * explicit_dt) * d);
    storage[4 * n + 1] = T(dt * s * d);
    storage[4 * n + 2] = T((1.0 - double(n) * implicit_dt) * d);
    storage[4 * n + 3] = T(-s * d);
  }
  step.coefficients = storage.data();
}

// One step of `rows` rows; source and target may be the same.
template <typename T>
void run_rows(
    StepKernel<T> kernel, bool adjoint, const Step<T>& step, int64_t rows, const T* source, const T* memory_input, T* target,
    T* grad_input) {
  const int64_t lanes = row_kernels<T>().lanes, blocks = (rows + lanes - 1) / lanes;
  const int64_t grain = std::max<int64_t>(1, kGrain / (lanes * std::max<int64_t>(1, step.order)));
  parallel_for(0, blocks, grain, [&](int64_t begin, int64_t end) {
    kernel(adjoint, step, source, memory_input, target, grad_input, begin * lanes, std::min(end * lanes, rows));
  });
}

}  // namespace seqmem
