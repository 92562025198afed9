// Row kernels of the memory updates: one table per scalar type, selected for this processor at the first call.
#pragma once

#include <cstdint>

#include "generators.h"

namespace seqmem {

// One discretised step of c' = A c + B f with step size dt. The rows are the B*M memories of a batch, each of `order` numbers.
template <typename T>
struct Step {
  int64_t order;
  int64_t rows_per_dt;  // M if `dt` holds one number per batch element, 0 if it holds one number for all rows
  const T* dt;
  T alpha;                // of the generalised bilinear transform: 0 forward Euler, 1/2 trapezoidal, 1 backward Euler
  const T* scale;         // LegS: sqrt(2n+1)
  const T* coefficients;  // LegS with one dt for all rows: (order, 4) coefficients of the recurrence, see legs.h
};

// Rows [begin, end) of one step. Forward (adjoint = false): from memory `source` and inputs `memory_input` to the new memory
// `target`. Backward (adjoint = true): from the gradient `source` of the new memory to the gradients `target` of the memory and
// `grad_input` of the inputs.
template <typename T>
using StepKernel = void (*)(
    bool adjoint, const Step<T>&, const T* source, const T* memory_input, T* target, T* grad_input, int64_t begin, int64_t end);

template <typename T>
struct RowKernels {
  int lanes;  // rows per vector; ranges should be multiples of it
  StepKernel<T> legs;
  StepKernel<T> legt;
  // The step of any measure with one `dt` per batch element; `workspace` has quasiseparable_workspace(order) numbers.
  void (*quasiseparable)(
      bool adjoint, const Step<T>&, const Generators<T>&, const T* source, const T* memory_input, T* target, T* grad_input,
      int64_t begin, int64_t end, T* workspace);
  // LegS coefficients (order,) of a signal of `length` > 0 samples; `workspace` has legs_approximation_workspace(order).
  void (*legs_approximation)(const T* signal, int64_t length, T* memory, int64_t order, T* workspace);
};

struct Kernels {
  const char* instruction_set;
  RowKernels<float> f32;
  RowKernels<double> f64;
  // exp(dt A) of LegS, (order, order) row-major; `workspace` has 4 * (order + 2) numbers.
  void (*legs_exponential)(double dt, int64_t order, double* exponential, double* workspace);
};

constexpr int kMaxLanes = 16;
constexpr int kMaxWaveVectors = 8;
constexpr int64_t legs_approximation_workspace(int64_t order) { return order + kMaxWaveVectors * kMaxLanes; }

constexpr int64_t quasiseparable_workspace(int64_t order) { return 5 * order * kMaxLanes; }

const Kernels& kernels();

}  // namespace seqmem
