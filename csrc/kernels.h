// What the operators call: one table of row kernels for each scalar type, chosen for this processor when first asked for.
#pragma once

#include <cstdint>

#include "generators.h"

namespace seqmem {

// One step c' = A c + B f of length dt, discretised. Rows are the B*M memories of a batch, each of `order` numbers.
template <typename T>
struct Step {
  int64_t order;
  int64_t rows_per_dt;  // M where `dt` holds one number per batch element, 0 where it holds one number for all rows
  const T* dt;
  T implicit;      // share of dt taken implicitly: 0 forward Euler, 1/2 trapezoid, 1 backward Euler
  const T* scale;  // LegS: sqrt(2n+1)
  const T* table;  // LegS with one dt for all rows: (order, 4) coefficients of the recurrence, see legs.h
};

// Rows [begin, end) of one step (adjoint = false: memory `from` and inputs `with` to the new memory `to`) or of its transpose
// (adjoint = true: gradient `from` of the new memory to gradients `to` of the memory and `out` of the inputs).
template <typename T>
using StepKernel = void (*)(bool adjoint, const Step<T>&, const T* from, const T* with, T* to, T* out, int64_t begin, int64_t end);

template <typename T>
struct RowKernels {
  int lanes;  // rows that one vector holds: hand out ranges in multiples of it
  StepKernel<T> legs;
  StepKernel<T> legt;
  // Any measure's step, with `dt` of its own for each batch element; workspace holds quasiseparable_workspace(order).
  void (*quasiseparable)(
      bool adjoint, const Step<T>&, const Generators<T>&, const T* from, const T* with, T* to, T* out, int64_t begin, int64_t end,
      T* workspace);
  // LegS coefficients (order,) of a signal of `length` > 0 samples; workspace holds legs_approximation_workspace(order).
  void (*legs_approximation)(const T* signal, int64_t length, T* memory, int64_t order, T* workspace);
};

struct Kernels {
  const char* instruction_set;
  RowKernels<float> single;
  RowKernels<double> twice;
  // exp(dt A) of LegS, (order, order) row-major; workspace holds 4 * (order + 2).
  void (*legs_exponential)(double dt, int64_t order, double* exponential, double* workspace);
};

constexpr int kMaxLanes = 16;
constexpr int kMaxWaveVectors = 8;
constexpr int64_t legs_approximation_workspace(int64_t order) { return order + kMaxWaveVectors * kMaxLanes; }

constexpr int64_t quasiseparable_workspace(int64_t order) { return 5 * order * kMaxLanes; }

const Kernels& kernels();

}  // namespace seqmem
