// Row kernels of the memory updates: one table per scalar type, selected for this processor at the first call.
#pragma once

#include "shared.h"

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

// LegS coefficients of a signal over steps of size 1/t: at t = 0 they become (f_0, 0, ...).
struct Projection {
  int64_t order;
  int64_t start, length;  // t of the first sample, and the number of samples
  int64_t every;          // the coefficients after each multiple of so many samples are kept, counted from t = 0; 0 for none
  double alpha;           // of the generalised bilinear transform; unused for zero-order hold

  bool keeps(int64_t t) const { return every > 0 && (t + 1) % every == 0; }
  int64_t kept() const { return every > 0 ? (start + length) / every - start / every : 0; }
};

template <typename T>
struct RowKernels {
  int lanes;  // rows per vector; ranges should be multiples of it
  StepKernel<T> legs;
  StepKernel<T> legt;
  // The step of any measure with one `dt` per batch element; `workspace` has quasiseparable_workspace(order) numbers.
  void (*quasiseparable)(
      bool adjoint, const Step<T>&, const Generators<T>&, const T* source, const T* memory_input, T* target, T* grad_input,
      int64_t begin, int64_t end, T* workspace);
  // One signal (length,), its memory (order,) before and then after the samples, and those that are kept, (kept, order).
  // `workspace` has legs_projection_workspace(order) numbers.
  void (*legs_projection)(const Projection&, const T* signal, T* memory, T* kept, T* workspace);
};

struct Kernels {
  const char* instruction_set;
  RowKernels<float> f32;
  RowKernels<double> f64;
  // exp(dt A) of LegS, (order, order) row-major; `workspace` has 4 * (order + 2) numbers.
  void (*legs_exponential)(double dt, int64_t order, double* exponential, double* workspace);
  // A projection by zero-order hold of `rows` signals, and its transpose; `workspace` has hold_workspace(order) numbers.
  void (*hold_projection)(
      const Projection&, int64_t rows, const double* signals, double* memories, double* kept, double* workspace);
  void (*hold_projection_adjoint)(
      const Projection&, int64_t rows, const double* grad_kept, double* memories, double* grad_signals, double* workspace);
};

constexpr int kMaxLanes = 16;
constexpr int kMaxWaveVectors = 8;
constexpr int64_t legs_projection_workspace(int64_t order) { return 2 * order + kMaxWaveVectors * kMaxLanes; }
constexpr int64_t hold_workspace(int64_t order) { return order * order + 5 * order + 8; }

constexpr int64_t quasiseparable_workspace(int64_t order) { return 5 * order * kMaxLanes; }

const Kernels& kernels();

}  // namespace seqmem
