// LegS, c' = A c + B f with A_nk = -s_n s_k (n > k), -(n+1) (n = k), 0 (n < k), B_n = s_n and s_n = sqrt(2n+1).
//
// The dense reference is seqmem/ops/reference.py. The generalised bilinear step, with i = alpha dt and e = dt - i, solves
//   (I - i A) y = (I + e A) x + dt B u.
// Row n needs only the running sum dt r_n = dt u - sum_{k<n} s_k (e x_k + i y_k). With D_n = 1 / (1 + (n+1) i),
//   y_n     = keep_n x_n + gain_n r_n      keep_n  = (1 - (n+1) e) D_n   gain_n = dt s_n D_n
//   r_{n+1} = carry_n r_n + feed_n x_n     carry_n = (1 - n i) D_n       feed_n = -s_n D_n     r_0 = u
// The transpose is the same recurrence from n = N-1 down to 0 with r_N = 0; the gradient of u is -dt r_0.
#pragma once

#include "kernels.h"
#include "vector.h"

namespace seqmem::SEQMEM_ISA {

// One dt for all rows: (keep, gain, carry, feed) of each n, filled by fill_legs_coefficients in updates.cpp.
template <typename T>
struct SharedLegsStep {
  const T* coefficients;
  T dt;

  SEQMEM_INLINE SharedLegsStep make(const Step<T>& step, int64_t, int) { return {step.coefficients, *step.dt}; }
  inline __attribute__((always_inline)) void advance(int64_t n, Vector<T>& x, Vector<T>& r) const {
    const T* c = coefficients + 4 * n;
    const Vector<T> y = c[0] * x + c[1] * r;
    r = c[2] * r + c[3] * x;
    x = y;
  }
};

// One dt per row: the coefficients are computed on the fly.
template <typename T>
struct PerRowLegsStep {
  Vector<T> dt, implicit_dt, explicit_dt;
  const T* scale;

  SEQMEM_INLINE PerRowLegsStep make(const Step<T>& step, int64_t row, int rows) {
    Vector<T> dt;
    for (int j = 0; j < kLanes<T>; ++j) dt[j] = step.dt[(row + (j < rows ? j : rows - 1)) / step.rows_per_dt];
    return {dt, step.alpha * dt, dt - step.alpha * dt, step.scale};
  }
  inline __attribute__((always_inline)) void advance(int64_t n, Vector<T>& x, Vector<T>& r) const {
    const Vector<T> d = T(1) / (T(1) + T(n + 1) * implicit_dt);
    const Vector<T> y = d * ((T(1) - T(n + 1) * explicit_dt) * x + scale[n] * dt * r);
    r = d * ((T(1) - T(n) * implicit_dt) * r - scale[n] * x);
    x = y;
  }
};

template <typename T, bool adjoint, typename Coefficients>
static void legs_rows(
    const Step<T>& step, const T* source, const T* memory_input, T* target, T* grad_input, int64_t begin, int64_t end) {
  constexpr int width = kLanes<T>;
  const int64_t order = step.order;
  const int64_t tiles = (order + width - 1) / width;
  for (int64_t row = begin; row < end; row += width) {
    const int rows = end - row < width ? int(end - row) : width;
    const auto coefficients = Coefficients::make(step, row, rows);
    Vector<T> r{};
    if (!adjoint) std::memcpy(&r, memory_input + row, rows * sizeof(T));
    for (int64_t k = 0; k < tiles; ++k) {
      const int64_t column = (adjoint ? tiles - 1 - k : k) * width;
      const int columns = order - column < width ? int(order - column) : width;
      Vector<T> tile[width];
      load_tile<T>(source + row * order, order, rows, column, columns, tile);
      if (columns == width) {
#pragma GCC unroll 16
        for (int c = 0; c < width; ++c) {
          const int index = adjoint ? width - 1 - c : c;
          coefficients.advance(column + index, tile[index], r);
        }
      } else {
        for (int c = 0; c < columns; ++c) {
          const int index = adjoint ? columns - 1 - c : c;
          coefficients.advance(column + index, tile[index], r);
        }
      }
      store_tile<T>(target + row * order, order, rows, column, columns, tile);
    }
    if (adjoint) {
      const Vector<T> gradient = -coefficients.dt * r;
      std::memcpy(grad_input + row, &gradient, rows * sizeof(T));
    }
  }
}

template <typename T>
static void legs_step(
    bool adjoint, const Step<T>& step, const T* source, const T* memory_input, T* target, T* grad_input, int64_t begin,
    int64_t end) {
  if (step.rows_per_dt == 0) {
    (adjoint ? legs_rows<T, true, SharedLegsStep<T>> : legs_rows<T, false, SharedLegsStep<T>>)(step, source, memory_input,
                                                                                               target, grad_input, begin, end);
  } else {
    (adjoint ? legs_rows<T, true, PerRowLegsStep<T>> : legs_rows<T, false, PerRowLegsStep<T>>)(step, source, memory_input,
                                                                                               target, grad_input, begin, end);
  }
}

// Wavefront over the steps of size 1/t, t = start, start + 1, ... At a stage, lane j computes coefficient n = stage - j of step
// t + j, from the value that lane j - 1 computed one stage earlier. kWaveVectors vectors of lanes run interleaved, to have
// several independent dependency chains in flight. On z_n = x_n / s_n the recurrence is, with the previous z_n on the right,
//   z_n <- v ((t - (n+1) (1-alpha)) z_n + r)    r <- v ((t - n alpha) r - t (2n+1) z_n)    v = 1 / (t + (n+1) alpha)
// For alpha = 1/2 (bilinear) all factors are doubled: v = 1 / (2t + n + 1) is contiguous in memory along the lanes.
constexpr int kWaveVectors = 4;
static_assert(2 * kWaveVectors <= kMaxWaveVectors);

template <typename T, bool bilinear>
struct Wavefront {
  static constexpr int width = kLanes<T>, lanes = kWaveVectors * width;

  Vector<T> z[kWaveVectors], r[kWaveVectors];
  Vector<T> two_t_minus_n[kWaveVectors];
  Vector<T> two_t[kWaveVectors];
  Vector<T> two_n_plus_1[kWaveVectors];
  Vector<T> lane[kWaveVectors];  // j
  T alpha;

  // `signal` begins at sample t.
  inline __attribute__((always_inline)) void start(const T* signal, int64_t t, int steps) {
    for (int q = 0; q < kWaveVectors; ++q) {
      for (int j = 0; j < width; ++j) lane[q][j] = T(q * width + j);
      two_t[q] = T(2 * t) + T(2) * lane[q];
      two_t_minus_n[q] = two_t[q] + lane[q];
      two_n_plus_1[q] = T(1) - T(2) * lane[q];
      z[q] = Vector<T>{};
      r[q] = Vector<T>{};
      for (int j = 0; j < width && q * width + j < steps; ++j) r[q][j] = signal[q * width + j];
    }
  }

  // `all_active`: every lane has reached its first coefficient. An inactive lane keeps its input and passes on zeros.
  template <bool all_active>
  inline __attribute__((always_inline)) void advance(int64_t stage, T first, const T* inverse) {
    Vector<T> incoming = broadcast<T>(first);
#pragma GCC unroll 4
    for (int q = 0; q < kWaveVectors; ++q) {
      const Vector<T> previous = shift_in<T>(incoming, z[q]);
      incoming = z[q];
      Vector<T> next_z, next_r;
      if constexpr (bilinear) {
        const Vector<T> v = load<T>(inverse + stage + q * width);
        next_z = v * (two_t_minus_n[q] * previous + (T(2) * r[q] - previous));
        next_r = v * (two_t_minus_n[q] * r[q] - two_n_plus_1[q] * (two_t[q] * previous));
      } else {
        const Vector<T> n = T(stage) - lane[q], t = T(0.5) * two_t[q], v = T(1) / (t + alpha * (n + T(1)));
        next_z = v * ((t - (T(1) - alpha) * (n + T(1))) * previous + r[q]);
        next_r = v * ((t - alpha * n) * r[q] - two_n_plus_1[q] * (t * previous));
      }
      if (all_active) {
        z[q] = next_z;
        r[q] = next_r;
      } else {
        const auto active = lane[q] <= T(stage);
        z[q] = active ? next_z : Vector<T>{};
        r[q] = active ? next_r : r[q];
      }
      two_t_minus_n[q] -= T(1);
      two_n_plus_1[q] += T(2);
    }
  }

  // Last result of a lane. By a copy, because a variable index would keep z out of registers.
  T value(int j) const {
    Vector<T> copy[kWaveVectors];
    for (int q = 0; q < kWaveVectors; ++q) copy[q] = z[q];
    return copy[j / width][j % width];
  }
};

// Prepares `memory` for the steps from t = 1 or `start` on, as z_n. Returns the end of the coefficients that are kept.
template <typename T>
static T* start_projection(const Projection& p, const T* signal, const T* scale, T* memory, T* kept) {
  if (p.start > 0) {
    for (int64_t n = 0; n < p.order; ++n) memory[n] /= scale[n];
    return kept;
  }
  // A sum, because a copy would not flush a denormal.
  for (int64_t n = 0; n < p.order; ++n) memory[n] = n == 0 ? signal[0] + T(0) : T(0);
  if (!p.keeps(0)) return kept;
  std::memcpy(kept, memory, p.order * sizeof(T));
  return kept + p.order;
}

// The steps t, ..., t + steps - 1, for which `wavefront` was started. Returns the end of the coefficients that are kept.
template <typename T, bool bilinear>
SEQMEM_INLINE T* run_wave(
    Wavefront<T, bilinear>& wavefront, const Projection& p, int64_t t, int steps, const T* scale, const T* inverse, T* memory,
    T* kept) {
  constexpr int lanes = Wavefront<T, bilinear>::lanes;
  const int64_t order = p.order;
  int kept_lanes[lanes], kept_count = 0;
  for (int j = 0; j < steps; ++j) {
    if (p.keeps(t + j)) kept_lanes[kept_count++] = j;
  }
  const auto store_coefficients = [&](int64_t stage) {
    if (stage >= steps - 1) memory[stage - steps + 1] = wavefront.value(steps - 1);
    for (int k = 0; k < kept_count; ++k) {
      const int64_t n = stage - kept_lanes[k];
      if (n >= 0 && n < order) kept[k * order + n] = scale[n] * wavefront.value(kept_lanes[k]);
    }
  };
  const int64_t stages = order + steps - 1;
  int64_t stage = 0;
  for (; stage < stages && stage < lanes; ++stage) {
    wavefront.template advance<false>(stage, stage < order ? memory[stage] : T(0), inverse);
    store_coefficients(stage);
  }
  if (steps == lanes && kept_count == 0) {
    for (; stage < order; ++stage) {
      wavefront.template advance<true>(stage, memory[stage], inverse);
      memory[stage - lanes + 1] = wavefront.z[kWaveVectors - 1][Wavefront<T, bilinear>::width - 1];
    }
  }
  for (; stage < stages; ++stage) {
    wavefront.template advance<true>(stage, stage < order ? memory[stage] : T(0), inverse);
    store_coefficients(stage);
  }
  return kept + kept_count * order;
}

template <typename T, bool bilinear>
static void wavefront_projection(const Projection& p, const T* signal, T* memory, T* kept, T* workspace) {
  constexpr int lanes = Wavefront<T, bilinear>::lanes;
  const int64_t order = p.order, end = p.start + p.length;
  T* const scale = workspace;        // s_n
  T* const inverse = scale + order;  // inverse[k] = 1 / (2t + 1 + k), k < order + 2 * lanes
  for (int64_t n = 0; n < order; ++n) scale[n] = T(__builtin_sqrt(double(2 * n + 1)));
  kept = start_projection(p, signal, scale, memory, kept);

  Wavefront<T, bilinear> wavefront;
  wavefront.alpha = T(p.alpha);
  const int64_t begin = p.start > 0 ? p.start : 1;
  for (int64_t t = begin; t < end; t += lanes) {
    const int steps = end - t < lanes ? int(end - t) : lanes;
    if (bilinear) {
      if (t > begin) std::memmove(inverse, inverse + 2 * lanes, order * sizeof(T));
      for (int64_t k = t > begin ? order : 0; k < order + 2 * lanes; ++k) inverse[k] = T(1) / T(2 * t + 1 + k);
    }
    wavefront.start(signal + (t - p.start), t, steps);
    kept = run_wave(wavefront, p, t, steps, scale, inverse, memory, kept);
  }
  for (int64_t n = 0; n < order; ++n) memory[n] *= scale[n];
}

template <typename T>
static void legs_projection(const Projection& p, const T* signal, T* memory, T* kept, T* workspace) {
  (p.alpha == 0.5 ? wavefront_projection<T, true> : wavefront_projection<T, false>)(p, signal, memory, kept, workspace);
}

// exp(dt A) in O(order^2). Let r = exp(-dt) and p_n = s_n P_n the Legendre polynomials, orthonormal on [0, 1]. A step dt maps
// the past onto [0, r], so exp(dt A)_nk = r <p_n(r .), p_k>. The coefficients of P_n(r .) in p_0, p_1, ... follow from the
// three-term recurrence, because multiplication by the argument is tridiagonal.
static void legs_exponential(double dt, int64_t order, double* exponential, double* workspace) {
  const double r = __builtin_exp(-dt);
  const double offset = __builtin_expm1(-dt);
  const int64_t stride = order + 2;
  for (int64_t k = 0; k < 4 * stride; ++k) workspace[k] = 0;
  double* const coupling = workspace;  // coupling[k] = k / sqrt(4 k^2 - 1)
  for (int64_t k = 1; k <= order; ++k) coupling[k] = double(k) / __builtin_sqrt(4.0 * double(k) * double(k) - 1.0);
  double* previous = workspace + stride + 1;  // entry -1 stays 0
  double* current = previous + stride;
  double* next = current + stride;
  current[0] = 1;
  for (int64_t n = 0; n < order; ++n) {
    const double scale = r * __builtin_sqrt(double(2 * n + 1));
    for (int64_t k = 0; k <= n; ++k) exponential[n * order + k] = scale * current[k];
    for (int64_t k = n + 1; k < order; ++k) exponential[n * order + k] = 0;
    const double lead = double(2 * n + 1) / double(n + 1), lag = double(n) / double(n + 1);
    for (int64_t k = 0; k <= n + 1 && k < order; ++k) {
      next[k] = lead * (r * (coupling[k] * current[k - 1] + coupling[k + 1] * current[k + 1]) + offset * current[k]) -
                lag * previous[k];
    }
    double* const oldest = previous;
    previous = current;
    current = next;
    next = oldest;
  }
}

// Steps of size ln((t+1)/t), t = start, start + 1, ..., by zero-order hold: c <- exp(dt A) (c - f e_0) + f e_0, since A^-1 B is
// -e_0. Signals are (rows, length) and memories (rows, order); `workspace` has hold_workspace(order) numbers.
static void hold_projection(
    const Projection& p, int64_t rows, const double* signals, double* memories, double* kept, double* workspace) {
  const int64_t order = p.order;
  double* const exponential = workspace + 4 * (order + 2);
  for (int64_t t = p.start, k = 0; t < p.start + p.length; ++t) {
    if (t > 0) legs_exponential(__builtin_log1p(1 / double(t)), order, exponential, workspace);
    for (int64_t row = 0; row < rows; ++row) {
      double* const c = memories + row * order;
      const double f = signals[row * p.length + t - p.start];
      c[0] -= f;
      // From the last coefficient on, in place: each depends on those before it.
      for (int64_t n = order - 1; n >= 0; --n) c[n] = t == 0 ? 0 : dot<double>(exponential + n * order, c, n + 1);
      c[0] += f;
      if (p.keeps(t)) std::memcpy(kept + (row * p.kept() + k) * order, c, order * sizeof(double));
    }
    k += p.keeps(t);
  }
}

// Its transpose, from the last step to the first: `memories` holds the gradient of the last memory, then that of the first.
static void hold_projection_adjoint(
    const Projection& p, int64_t rows, const double* grad_kept, double* memories, double* grad_signals, double* workspace) {
  const int64_t order = p.order;
  double *const exponential = workspace + 4 * (order + 2), *const product = exponential + order * order;
  for (int64_t t = p.start + p.length - 1, k = p.kept(); t >= p.start; --t) {
    k -= p.keeps(t);
    if (t > 0) legs_exponential(__builtin_log1p(1 / double(t)), order, exponential, workspace);
    for (int64_t row = 0; row < rows; ++row) {
      double* const c = memories + row * order;
      for (int64_t n = 0; p.keeps(t) && n < order; ++n) c[n] += grad_kept[(row * p.kept() + k) * order + n];
      for (int64_t n = 0; n < order; ++n) product[n] = 0;
      for (int64_t n = 0; t > 0 && n < order; ++n) {
        for (int64_t m = 0; m <= n; ++m) product[m] += c[n] * exponential[n * order + m];
      }
      grad_signals[row * p.length + t - p.start] = c[0] - product[0];
      std::memcpy(c, product, order * sizeof(double));
    }
  }
}

}  // namespace seqmem::SEQMEM_ISA
