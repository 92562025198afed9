// LegS, c' = A c + B f with A_nk = -s_n s_k (n > k), -(n+1) (n = k), 0 (n < k), B_n = s_n and s_n = sqrt(2n+1).
//
// The generalised bilinear step, with the share i = implicit * dt taken implicitly and e = dt - i explicitly, solves
//   (I - i A) y = (I + e A) x + dt B u.
// Row n of it needs only the running sum dt r_n = dt u - sum_{k<n} s_k (e x_k + i y_k), and with D_n = 1 / (1 + (n+1) i)
//   y_n     = keep_n x_n + gain_n r_n      keep_n  = (1 - (n+1) e) D_n   gain_n = dt s_n D_n
//   r_{n+1} = carry_n r_n + feed_n x_n     carry_n = (1 - n i) D_n       feed_n = -s_n D_n     r_0 = u
// The transpose of the step is the same recurrence run from n = N-1 down to 0 with r_N = 0; the gradient of u is -dt r_0.
#pragma once

#include "kernels.h"
#include "vector.h"

namespace seqmem::SEQMEM_ISA {

// Coefficients that all rows share, from the table that legs_table fills.
template <typename T>
struct SharedLegsStep {
  const T* table;
  T dt;

  SEQMEM_INLINE SharedLegsStep make(const Step<T>& step, int64_t, int) { return {step.table, *step.dt}; }
  inline __attribute__((always_inline)) void advance(int64_t n, Vector<T>& x, Vector<T>& r) const {
    const T* c = table + 4 * n;
    const Vector<T> y = c[0] * x + c[1] * r;
    r = c[2] * r + c[3] * x;
    x = y;
  }
};

// Every row has its own dt.
template <typename T>
struct OwnLegsStep {
  Vector<T> dt, i, e;
  const T* scale;

  SEQMEM_INLINE OwnLegsStep make(const Step<T>& step, int64_t row, int rows) {
    Vector<T> dt;
    for (int j = 0; j < kLanes<T>; ++j) dt[j] = step.dt[(row + (j < rows ? j : rows - 1)) / step.rows_per_dt];
    return {dt, step.implicit * dt, dt - step.implicit * dt, step.scale};
  }
  inline __attribute__((always_inline)) void advance(int64_t n, Vector<T>& x, Vector<T>& r) const {
    const Vector<T> d = T(1) / (T(1) + T(n + 1) * i);
    const Vector<T> y = d * ((T(1) - T(n + 1) * e) * x + scale[n] * dt * r);
    r = d * ((T(1) - T(n) * i) * r - scale[n] * x);
    x = y;
  }
};

template <typename T, bool adjoint, typename Coefficients>
static void legs_rows(const Step<T>& step, const T* from, const T* with, T* to, T* out, int64_t begin, int64_t end) {
  constexpr int width = kLanes<T>;
  const int64_t order = step.order;
  const int64_t tiles = (order + width - 1) / width;
  for (int64_t row = begin; row < end; row += width) {
    const int rows = end - row < width ? int(end - row) : width;
    const auto coefficients = Coefficients::make(step, row, rows);
    Vector<T> r{};
    if (!adjoint) std::memcpy(&r, with + row, rows * sizeof(T));
    for (int64_t k = 0; k < tiles; ++k) {
      const int64_t column = (adjoint ? tiles - 1 - k : k) * width;
      const int columns = order - column < width ? int(order - column) : width;
      Vector<T> tile[width];
      load_tile<T>(from + row * order, order, rows, column, columns, tile);
      if (columns == width) {
#pragma GCC unroll 16
        for (int c = 0; c < width; ++c) {
          const int at = adjoint ? width - 1 - c : c;
          coefficients.advance(column + at, tile[at], r);
        }
      } else {
        for (int c = 0; c < columns; ++c) {
          const int at = adjoint ? columns - 1 - c : c;
          coefficients.advance(column + at, tile[at], r);
        }
      }
      store_tile<T>(to + row * order, order, rows, column, columns, tile);
    }
    if (adjoint) {
      const Vector<T> gradient = -coefficients.dt * r;
      std::memcpy(out + row, &gradient, rows * sizeof(T));
    }
  }
}

template <typename T>
static void legs_step(bool adjoint, const Step<T>& step, const T* from, const T* with, T* to, T* out, int64_t begin, int64_t end) {
  if (step.rows_per_dt == 0) {
    (adjoint ? legs_rows<T, true, SharedLegsStep<T>> : legs_rows<T, false, SharedLegsStep<T>>)(step, from, with, to, out, begin, end);
  } else {
    (adjoint ? legs_rows<T, true, OwnLegsStep<T>> : legs_rows<T, false, OwnLegsStep<T>>)(step, from, with, to, out, begin, end);
  }
}

// The trapezoidal step with dt = 1/t for t = 1 .. length-1, many steps at a time: lane j is at step t + j and coefficient
// n = tick - j, so that what it reads is what lane j - 1 wrote one tick before. kWaves vectors of lanes follow one another, so
// that a processor has several independent chains of operations in flight. On z_n = x_n / s_n, with dt = 1/t, the recurrence is
//   z_n <- v ((2t - n - 1) z_n + 2 r)    r <- v ((2t - n) r - 2t (2n+1) z_n)    v = 1 / (2t + n + 1)
// where z_n on the right is the old one; along the lanes v is contiguous in memory.
constexpr int kWaves = 4;
static_assert(2 * kWaves <= kMaxWaveVectors);

template <typename T>
struct Waves {
  static constexpr int width = kLanes<T>, lanes = kWaves * width;

  Vector<T> z[kWaves], r[kWaves];
  Vector<T> rest[kWaves];   // 2t - n
  Vector<T> twice[kWaves];  // 2t
  Vector<T> odd[kWaves];    // 2n + 1
  Vector<T> lane[kWaves];   // j

  inline __attribute__((always_inline)) void start(const T* signal, int64_t t, int steps) {
    for (int q = 0; q < kWaves; ++q) {
      for (int j = 0; j < width; ++j) lane[q][j] = T(q * width + j);
      twice[q] = T(2 * t) + T(2) * lane[q];
      rest[q] = twice[q] + lane[q];
      odd[q] = T(1) - T(2) * lane[q];
      z[q] = Vector<T>{};
      r[q] = Vector<T>{};
      for (int j = 0; j < width && q * width + j < steps; ++j) r[q][j] = signal[t + q * width + j];
    }
  }

  // `started`: every lane has reached its first coefficient. Before, it keeps its input and hands on zeros.
  template <bool started>
  inline __attribute__((always_inline)) void advance(int64_t tick, T first, const T* inverse) {
    Vector<T> handed = broadcast<T>(first);
#pragma GCC unroll 4
    for (int q = 0; q < kWaves; ++q) {
      const Vector<T> old = shift_in<T>(handed, z[q]);
      handed = z[q];
      const Vector<T> v = load<T>(inverse + tick + q * width);
      const Vector<T> now = v * (rest[q] * old + (T(2) * r[q] - old));
      const Vector<T> next = v * (rest[q] * r[q] - odd[q] * (twice[q] * old));
      if (started) {
        z[q] = now;
        r[q] = next;
      } else {
        const auto reached = lane[q] <= T(tick);
        z[q] = reached ? now : Vector<T>{};
        r[q] = reached ? next : r[q];
      }
      rest[q] -= T(1);
      odd[q] += T(2);
    }
  }
};

template <typename T>
static void legs_approximation(const T* signal, int64_t length, T* memory, int64_t order, T* workspace) {
  constexpr int lanes = Waves<T>::lanes;
  T* const inverse = workspace;  // inverse[k] = 1 / (2t + 1 + k), k < order + 2 * lanes
  for (int64_t n = 0; n < order; ++n) memory[n] = T(0);
  if (order == 0) return;
  memory[0] = signal[0];

  Waves<T> waves;
  for (int64_t t = 1; t < length; t += lanes) {
    const int steps = length - t < lanes ? int(length - t) : lanes;
    if (t > 1) std::memmove(inverse, inverse + 2 * lanes, order * sizeof(T));
    for (int64_t k = t > 1 ? order : 0; k < order + 2 * lanes; ++k) inverse[k] = T(1) / T(2 * t + 1 + k);
    waves.start(signal, t, steps);
    const int64_t ticks = order + steps - 1;
    const auto write = [&](int64_t tick) {
      if (tick >= steps - 1) memory[tick - steps + 1] = waves.z[(steps - 1) / Waves<T>::width][(steps - 1) % Waves<T>::width];
    };
    int64_t tick = 0;
    for (; tick < ticks && tick < lanes; ++tick) {
      waves.template advance<false>(tick, tick < order ? memory[tick] : T(0), inverse);
      write(tick);
    }
    if (steps == lanes) {
      for (; tick < order; ++tick) {
        waves.template advance<true>(tick, memory[tick], inverse);
        memory[tick - lanes + 1] = waves.z[kWaves - 1][Waves<T>::width - 1];
      }
    }
    for (; tick < ticks; ++tick) {
      waves.template advance<true>(tick, tick < order ? memory[tick] : T(0), inverse);
      write(tick);
    }
  }
  for (int64_t n = 0; n < order; ++n) memory[n] *= T(__builtin_sqrt(double(2 * n + 1)));
}

// exp(dt A) in O(order^2). With r = exp(-dt) and p_n = s_n P_n the Legendre polynomials orthonormal on [0, 1], going on for a
// step dt squeezes the past onto [0, r], so that exp(dt A)_nk = r <p_n(r .), p_k>. The coefficients of P_n(r .) in p_0, p_1, ...
// follow from the three-term recurrence, multiplication by the argument being tridiagonal.
static void legs_exponential(double dt, int64_t order, double* exponential, double* workspace) {
  const double r = __builtin_exp(-dt);
  const double offset = __builtin_expm1(-dt);
  const int64_t stride = order + 2;
  for (int64_t k = 0; k < 4 * stride; ++k) workspace[k] = 0;
  double* const coupling = workspace;  // coupling[k] = k / sqrt(4 k^2 - 1)
  for (int64_t k = 1; k <= order; ++k) coupling[k] = double(k) / __builtin_sqrt(4.0 * double(k) * double(k) - 1.0);
  double* before = workspace + stride + 1;  // entry -1 stays 0
  double* now = before + stride;
  double* after = now + stride;
  now[0] = 1;
  for (int64_t n = 0; n < order; ++n) {
    const double scale = r * __builtin_sqrt(double(2 * n + 1));
    for (int64_t k = 0; k <= n; ++k) exponential[n * order + k] = scale * now[k];
    for (int64_t k = n + 1; k < order; ++k) exponential[n * order + k] = 0;
    const double lead = double(2 * n + 1) / double(n + 1), lag = double(n) / double(n + 1);
    for (int64_t k = 0; k <= n + 1 && k < order; ++k) {
      after[k] = lead * (r * (coupling[k] * now[k - 1] + coupling[k + 1] * now[k + 1]) + offset * now[k]) - lag * before[k];
    }
    double* const oldest = before;
    before = now;
    now = after;
    after = oldest;
  }
}

}  // namespace seqmem::SEQMEM_ISA
