// Arguments of the linear recurrences over a whole sequence whose factors do not depend on the state, and the table of their
// loops for one instruction set: the diagonal scan, the gates of minGRU and minLSTM, and forced oscillators. The references are
// in seqmem/ops/diagonal_scan.py, minimal_gates.py and oscillators.py.
//
// A loop runs through all steps of one batch row, for a range of the numbers of a step. The state stays in a workspace in the
// first-level cache, and the sequences pass once. Each number is computed by itself, so that the results do not depend on the
// number of threads; sums over steps are those of a row, added up in float64 and in the order of the rows.
#pragma once

#include "shared.h"

#include <cstdint>

namespace seqmem {

// Numbers of a step that a loop computes: [begin, end), of one batch row.
struct ScanRange {
  int64_t row, begin, end;

  int64_t count() const { return end - begin; }
};

struct ScanSizes {
  int64_t batch, steps;
  int64_t width;           // numbers of a step of the outputs: N, or 2 N for pairs
  const int64_t* lengths;  // (B,), or null
  bool streams;            // non-temporal stores: the outputs exceed the caches, and their rows consist of whole cache lines

  int64_t length(int64_t row) const { return lengths == nullptr ? steps : lengths[row]; }
};

// h_t = a_t h_{t-1} + b_t, of real numbers or pairs.
template <typename T>
struct DiagonalScan {
  ScanSizes sizes;
  bool pairs, varying, reverse;

  const T* a;        // (width,), or (B, T, width) if it varies
  const T* b;        // (B, T, width)
  const T* initial;  // (B, width), or null
  T* h;              // (B, T, width)
  T* final;          // (B, width)

  const T* states;  // h, for backward
  const T* grad_h;  // null for zero, as the next
  const T* grad_final;
  T* grad_a;         // (B, T, width) if a varies; null if not needed, as the next
  double* grad_row;  // (B, width): the sums over the steps of each row, if a is constant
  T* grad_b;
  T* grad_initial;
};

enum class Gates { gru, lstm, lstm_raw };

// h_t = a_t h_{t-1} + i_t g(k_h), with the gates of the projected inputs.
template <typename T>
struct MinimalGates {
  ScanSizes sizes;
  Gates gates;

  const T* projected;  // (B, T, parts width): k_h, then k_z or k_f and k_i
  const T* initial;    // (B, width), or null
  T* h;
  T* final;

  const T* states;
  const T* grad_h;
  const T* grad_final;
  T* grad_projected;
  T* grad_initial;
};

// Coefficients of an oscillator with velocity z and position y: w = y + lead z, z' = z + gain (u - stiffness w), y' = y + step z'.
enum Coefficient { kLead, kStiffness, kGain, kStep, kCoefficients };

template <typename T>
struct Oscillators {
  ScanSizes sizes;  // width = 2 P: real and imaginary part

  const T* coefficients;  // (kCoefficients, width)
  const T* driven;        // (B, T, width)
  const T* initial;       // (B, 2, width), or null
  T* positions;           // (B, T, width)
  T* velocities;          // (B, T, width) for backward, or null
  T* final;               // (B, 2, width)

  const T* all_positions;  // positions and velocities, for backward
  const T* all_velocities;
  const T* grad_positions;
  const T* grad_final;
  double* grad_row;  // (B, kCoefficients, width)
  T* grad_driven;
  T* grad_initial;
};

// Numbers of the workspace of a loop, by the numbers of its range: all vectors that it keeps between two steps.
constexpr int64_t kScanBuffers = 9;
constexpr int64_t scan_workspace(int64_t count) { return kScanBuffers * (count + 16); }

template <typename T>
struct ScanKernels {
  void (*scan)(const DiagonalScan<T>&, const ScanRange&, T* workspace);
  void (*scan_backward)(const DiagonalScan<T>&, const ScanRange&, T* workspace);
  void (*gates)(const MinimalGates<T>&, const ScanRange&, T* workspace);
  void (*gates_backward)(const MinimalGates<T>&, const ScanRange&, T* workspace);
  void (*oscillators)(const Oscillators<T>&, const ScanRange&, T* workspace);
  void (*oscillators_backward)(const Oscillators<T>&, const ScanRange&, T* workspace);
};

struct ScanTable {
  ScanKernels<float> f32;
  ScanKernels<double> f64;
};

const ScanTable& scan_kernels();

}  // namespace seqmem
