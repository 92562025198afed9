// One O(N) step of c' = A c + B f for a quasiseparable transition,
//   A_nk = -p_n q_k (n > k), -d_n (n = k), -g_n h_k (n < k).
// The transition of every measure has this form; seqmem/ops/transition.py has the generators, seqmem/ops/reference.py the dense
// step. A vector holds one coefficient of W rows.
//
// The generalised bilinear step, with i = alpha dt and e = dt - i, solves
//   M y = (I + e A) x + dt B u,   M = I - i A,
// by M = L U with L_jn = p_j a_n (j > n), 1 (j = n) and U_nk = D_n (k = n), s_n h_k (k > n). Eliminating n changes the
// remaining matrix by a multiple of p h^T, so one number E_n describes it:
//   t_n = i q_n - E_n h_n       s_n = i g_n - E_n p_n   D_n = 1 + i d_n - E_n p_n h_n
//   E_{n+1} = E_n + t_n s_n / D_n   a_n = t_n / D_n
// No pivoting is needed: in a suitable basis the symmetric part of -A is positive semidefinite, so that of M is at least the
// identity.
//
// If A is lower triangular and B = scale p, the explicit half and the elimination are one recurrence. With
// dt r_n = dt scale u - sum_{k<n} q_k (e x_k + i y_k),
//   y_n     = keep_n x_n + gain_n r_n      keep_n  = 1 - dt d_n D_n       gain_n = dt p_n D_n      D_n = 1 / (1 + d_n i)
//   r_{n+1} = carry_n r_n + feed_n x_n     carry_n = 1 - i p_n q_n D_n    feed_n = -q_n D_n
// The transpose is the same recurrence from n = N-1 down to 0 with gain and feed exchanged and r_N = 0; the gradient of u is
// scale r_0.
#pragma once

#include <cstdint>

#include "generators.h"
#include "vector.h"

namespace seqmem::SEQMEM_ISA {

// A scalar for all rows, computed in float64, or one number per row.
template <typename T, bool per_row>
struct CoefficientOf {
  using type = T;
  using computed = double;
};
template <typename T>
struct CoefficientOf<T, true> {
  using type = Vector<T>;
  using computed = Vector<T>;
};
template <typename T, bool per_row>
using Coefficient = typename CoefficientOf<T, per_row>::type;

// dt, alpha dt and (1 - alpha) dt of a step. With one step size per row, `started` marks the rows that start with c = u e_0.
template <typename T, bool per_row>
struct StepSize {
  Coefficient<T, per_row> dt, implicit_dt, explicit_dt;
  typename VectorOf<T>::index started;
};

// An infinite dt, 1 / t at t = 0, starts a memory.
template <typename T>
SEQMEM_INLINE StepSize<T, true> per_row_step_size(const Vector<T>& dt, T alpha) {
  StepSize<T, true> step;
  step.started = dt > T(3e38);
  step.dt = step.started ? Vector<T>{} : dt;
  step.implicit_dt = alpha * step.dt;
  step.explicit_dt = step.dt - step.implicit_dt;
  return step;
}

// Coefficients (order,) of a triangular step with one dt for all rows.
template <typename T>
struct TriangularTable {
  T *keep, *gain, *carry, *feed;

  static constexpr int64_t size(int64_t order) { return 4 * order; }
  TriangularTable(T* storage, int64_t order)
      : keep(storage), gain(storage + order), carry(storage + 2 * order), feed(storage + 3 * order) {}

  // In float64: the same rounding error at every step would accumulate over a long sequence.
  void fill(const Generators<T>& m, double dt, double alpha) const {
    const double implicit_dt = dt * alpha, *const p = m.f64, *const q = p + m.order, *const d = q + m.order;
    for (int64_t n = 0; n < m.order; ++n) {
      const double inverse = 1 / (1 + d[n] * implicit_dt);
      keep[n] = T(1 - d[n] * dt * inverse);
      gain[n] = T(dt * p[n] * inverse);
      carry[n] = T(1 - p[n] * q[n] * implicit_dt * inverse);
      feed[n] = T(-q[n] * inverse);
    }
  }
};

// a, s and 1 / D of the LU factorisation. With one step size for all rows in float64, as TriangularTable.
template <typename T, bool per_row>
struct EliminationTable {
  T *a, *s, *inverse;
  int64_t stride;

  static constexpr int64_t size(int64_t order) { return 3 * order * (per_row ? kLanes<T> : 1); }
  using Number = typename CoefficientOf<T, per_row>::computed;

  EliminationTable(T* storage, int64_t order)
      : a(storage), s(storage + size(order) / 3), inverse(storage + 2 * (size(order) / 3)), stride(per_row ? kLanes<T> : 1) {}

  Coefficient<T, per_row> get(const T* table, int64_t n) const {
    if constexpr (per_row) {
      return load<T>(table + n * stride);
    } else {
      return table[n];
    }
  }
  void set(T* table, int64_t n, const Number& value) const {
    if constexpr (per_row) {
      store<T>(table + n * stride, value);
    } else {
      table[n] = T(value);
    }
  }
  static auto row(const Generators<T>& m, int64_t k) {
    if constexpr (per_row) {
      return m.p + k * m.order;
    } else {
      return m.f64 + k * m.order;
    }
  }

  void fill(const Generators<T>& m, const Number& implicit_dt) const {
    const auto *const p = row(m, 0), *const q = row(m, 1), *const d = row(m, 2), *const g = row(m, 3), *const h = row(m, 4);
    Number eliminated{};  // E_n
    for (int64_t n = 0; n < m.order; ++n) {
      const Number t_n = q[n] * implicit_dt - eliminated * h[n];
      const Number s_n = g[n] * implicit_dt - eliminated * p[n];
      const Number inverse_n = T(1) / (T(1) + d[n] * implicit_dt - eliminated * (p[n] * h[n]));
      set(a, n, t_n * inverse_n);
      set(s, n, s_n);
      set(inverse, n, inverse_n);
      eliminated += t_n * s_n * inverse_n;
    }
  }
};

// Steps `count` memories of one block each, from (order, W) at x[c] to y[c], which may alias. The recurrences run interleaved,
// because each is one long dependency chain. Rows that are not valid keep their memory. The caller handles a step that starts
// all memories.
template <typename T, bool adjoint, int count>
static void triangular_step(
    const Generators<T>& m, const TriangularTable<T>& table, const T* const* x, T* const* y, T* const* memory_input,
    const typename VectorOf<T>::index* valid) {
  constexpr int width = kLanes<T>;
  Vector<T> r[count];
  for (int c = 0; c < count; ++c) r[c] = adjoint ? Vector<T>{} : m.scale * load<T>(memory_input[c]);
  for (int64_t k = 0; k < m.order; ++k) {
    const int64_t n = adjoint ? m.order - 1 - k : k;
    const T keep = table.keep[n], gain = adjoint ? table.feed[n] : table.gain[n], carry = table.carry[n],
            feed = adjoint ? table.gain[n] : table.feed[n];
#pragma GCC unroll 4
    for (int c = 0; c < count; ++c) {
      const Vector<T> before = load<T>(x[c] + n * width);
      const Vector<T> after = keep * before + gain * r[c];
      r[c] = carry * r[c] + feed * before;
      store<T>(y[c] + n * width, valid[c] ? after : before);
    }
  }
  if (adjoint) {
    for (int c = 0; c < count; ++c) store<T>(memory_input[c], valid[c] ? m.scale * r[c] : Vector<T>{});
  }
}

template <typename T, bool adjoint>
static void per_row_triangular_step(
    const Generators<T>& m, const StepSize<T, true>& step, const T* x, T* y, T* memory_input,
    const typename VectorOf<T>::index& valid) {
  constexpr int width = kLanes<T>;
  const Vector<T> u = adjoint ? Vector<T>{} : load<T>(memory_input);
  Vector<T> r = m.scale * u, first{};
  for (int64_t k = 0; k < m.order; ++k) {
    const int64_t n = adjoint ? m.order - 1 - k : k;
    const Vector<T> d = T(1) / (T(1) + m.d[n] * step.implicit_dt);
    const Vector<T> before = load<T>(x + n * width);
    // Adds the change to x and r: computing keep and carry would lose digits, as both are close to 1.
    Vector<T> after;
    if constexpr (adjoint) {
      after = before - d * (step.dt * m.d[n] * before + m.q[n] * r);
      r += d * m.p[n] * (step.dt * before - step.implicit_dt * m.q[n] * r);
    } else {
      after = before + d * step.dt * (m.p[n] * r - m.d[n] * before);
      r -= d * m.q[n] * (before + step.implicit_dt * m.p[n] * r);
    }
    if (n == 0) first = before;
    after = step.started ? (n == 0 && !adjoint ? u : Vector<T>{}) : after;
    store<T>(y + n * width, valid ? after : before);
  }
  if (adjoint) store<T>(memory_input, valid ? (step.started ? first : m.scale * r) : Vector<T>{});
}

// The general case, in three passes; z is a workspace of (order, W). The caller handles a step that starts all memories.
template <typename T, bool per_row>
static void general_step(
    const Generators<T>& m, const EliminationTable<T, per_row>& table, const StepSize<T, per_row>& step, const T* x, T* y,
    const Vector<T>& u, const typename VectorOf<T>::index& valid, T* z) {
  constexpr int width = kLanes<T>;
  const Vector<T> dt_u = step.dt * u;
  Vector<T> upper_sum{}, lower_sum{}, solve_sum{};
  for (int64_t n = m.order - 1; n >= 0; --n) {
    const Vector<T> before = load<T>(x + n * width);
    store<T>(z + n * width, before - step.explicit_dt * (m.d[n] * before + m.g[n] * upper_sum) + m.b[n] * dt_u);
    upper_sum += m.h[n] * before;
  }
  for (int64_t n = 0; n < m.order; ++n) {
    const Vector<T> w = load<T>(z + n * width) - m.p[n] * (step.explicit_dt * lower_sum + solve_sum);
    lower_sum += m.q[n] * load<T>(x + n * width);
    solve_sum += table.get(table.a, n) * w;
    store<T>(z + n * width, w);
  }
  Vector<T> back_sum{};
  for (int64_t n = m.order - 1; n >= 0; --n) {
    Vector<T> after = (load<T>(z + n * width) - table.get(table.s, n) * back_sum) * table.get(table.inverse, n);
    back_sum += m.h[n] * after;
    if constexpr (per_row) after = step.started ? (n == 0 ? u : Vector<T>{}) : after;
    store<T>(y + n * width, valid ? after : load<T>(x + n * width));
  }
}

// Its transpose: v = M^-T x and y = (I + e A^T) v. Returns dt B . v, the gradient of the memory input.
template <typename T, bool per_row>
static Vector<T> general_adjoint(
    const Generators<T>& m, const EliminationTable<T, per_row>& table, const StepSize<T, per_row>& step, const T* x, T* y,
    const typename VectorOf<T>::index& valid, T* z) {
  constexpr int width = kLanes<T>;
  const Vector<T> first = m.order > 0 ? load<T>(x) : Vector<T>{};
  Vector<T> solve_sum{}, lower_sum{}, drive{}, upper_sum{};
  for (int64_t n = 0; n < m.order; ++n) {
    const Vector<T> w = (load<T>(x + n * width) - m.h[n] * solve_sum) * table.get(table.inverse, n);
    solve_sum += table.get(table.s, n) * w;
    store<T>(z + n * width, w);
  }
  for (int64_t n = m.order - 1; n >= 0; --n) {
    const Vector<T> v = load<T>(z + n * width) - table.get(table.a, n) * lower_sum;
    store<T>(z + n * width, v);
    const Vector<T> partial = v - step.explicit_dt * (m.d[n] * v + m.q[n] * lower_sum);
    lower_sum += m.p[n] * v;
    drive += m.b[n] * v;
    // The next loop adds the part above the diagonal. Rows that are not valid keep their gradient.
    store<T>(y + n * width, valid ? partial : load<T>(x + n * width));
  }
  for (int64_t n = 0; n < m.order; ++n) {
    Vector<T> after = load<T>(y + n * width);
    after = valid ? after - step.explicit_dt * (m.h[n] * upper_sum) : after;
    upper_sum += m.g[n] * load<T>(z + n * width);
    if constexpr (per_row) after = valid && step.started ? Vector<T>{} : after;
    store<T>(y + n * width, after);
  }
  Vector<T> gradient = step.dt * drive;
  if constexpr (per_row) gradient = step.started ? first : gradient;
  return valid ? gradient : Vector<T>{};
}

}  // namespace seqmem::SEQMEM_ISA
