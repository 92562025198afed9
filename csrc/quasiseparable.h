// One step of c' = A c + B f for a quasiseparable A,
//   A_nk = -p_n q_k (n > k), -d_n (n = k), -g_n h_k (n < k),
// which every measure's transition is (seqmem/ops/transition.py names the generators). A vector holds one coefficient of W rows.
//
// The generalised bilinear step, with the share i = implicit * dt taken implicitly and e = dt - i explicitly, solves
//   M y = (I + e A) x + dt B u,   M = I - i A,
// in O(N): M = L U with L_jn = p_j a_n (j > n), 1 (j = n) and U_nk = D_n (k = n), s_n h_k (k > n). Eliminating n changes what is
// left of M by a multiple of p h^T, so that one number y_n says how far it has come:
//   t_n = i q_n - y_n h_n   s_n = i g_n - y_n p_n   D_n = 1 + i d_n - y_n p_n h_n   a_n = t_n / D_n   y_{n+1} = y_n + t_n s_n / D_n
// No pivoting is needed: the symmetric part of -A is not negative in the right basis, so that of M is at least the identity.
//
// Where nothing lies above the diagonal and B = scale p, the explicit half and the elimination are one recurrence: with
// dt r_n = dt scale u - sum_{k<n} q_k (e x_k + i y_k),
//   y_n     = keep_n x_n + gain_n r_n      keep_n  = 1 - dt d_n D_n       gain_n = dt p_n D_n      D_n = 1 / (1 + d_n i)
//   r_{n+1} = carry_n r_n + feed_n x_n     carry_n = 1 - i p_n q_n D_n    feed_n = -q_n D_n
// and the transpose is the same recurrence run from n = N-1 down to 0 with gain and feed exchanged and r_N = 0; the gradient of u
// is scale r_0.
#pragma once

#include <cstdint>

#include "generators.h"
#include "vector.h"

namespace seqmem::SEQMEM_ISA {

// One number for all rows, or one for each.
template <typename T, bool own>
struct CoefficientOf {
  using type = T;
};
template <typename T>
struct CoefficientOf<T, true> {
  using type = Vector<T>;
};
template <typename T, bool own>
using Coefficient = typename CoefficientOf<T, own>::type;

// The step sizes of a step: dt, the shares of it, and where rows have their own those that start anew, with c = u e_0.
template <typename T, bool own>
struct StepSize {
  Coefficient<T, own> dt, implicit, rest;
  typename VectorOf<T>::index started;
};

// An infinite dt, the 1 / t of t = 0, starts a memory.
template <typename T>
SEQMEM_INLINE StepSize<T, true> own_step_size(const Vector<T>& given, T share) {
  StepSize<T, true> step;
  step.started = given > T(3e38);
  step.dt = step.started ? Vector<T>{} : given;
  step.implicit = share * step.dt;
  step.rest = step.dt - step.implicit;
  return step;
}

// The numbers of a step that is triangular, each (order,) of T, or of W where rows have their own step sizes.
template <typename T>
struct TriangularTable {
  T *keep, *gain, *carry, *feed;

  static constexpr int64_t size(int64_t order) { return 4 * order; }
  TriangularTable(T* storage, int64_t order)
      : keep(storage), gain(storage + order), carry(storage + 2 * order), feed(storage + 3 * order) {}

  // In double: rounding that is the same at every step adds up over a long sequence.
  void fill(const Generators<T>& m, double dt, double share) const {
    if (dt > 3e38) {
      for (int64_t n = 0; n < 4 * m.order; ++n) keep[n] = T(0);
      if (m.order > 0) gain[0] = T(1) / m.scale;
      return;
    }
    const double implicit = dt * share, *const p = m.exact, *const q = p + m.order, *const d = q + m.order;
    for (int64_t n = 0; n < m.order; ++n) {
      const double inverse = 1 / (1 + d[n] * implicit);
      keep[n] = T(1 - d[n] * dt * inverse);
      gain[n] = T(dt * p[n] * inverse);
      carry[n] = T(1 - p[n] * q[n] * implicit * inverse);
      feed[n] = T(-q[n] * inverse);
    }
  }
};

// a, s and 1 / D of the elimination.
template <typename T, bool own>
struct EliminationTable {
  T *a, *s, *inverse;
  int64_t stride;

  static constexpr int64_t size(int64_t order) { return 3 * order * (own ? kLanes<T> : 1); }
  EliminationTable(T* storage, int64_t order)
      : a(storage), s(storage + size(order) / 3), inverse(storage + 2 * (size(order) / 3)), stride(own ? kLanes<T> : 1) {}

  Coefficient<T, own> at(const T* table, int64_t n) const {
    if constexpr (own) {
      return load<T>(table + n * stride);
    } else {
      return table[n];
    }
  }
  void put(T* table, int64_t n, const Coefficient<T, own>& value) const {
    if constexpr (own) {
      store<T>(table + n * stride, value);
    } else {
      table[n] = value;
    }
  }

  void fill(const Generators<T>& m, const Coefficient<T, own>& implicit) const {
    Coefficient<T, own> gone{};
    for (int64_t n = 0; n < m.order; ++n) {
      const Coefficient<T, own> down = m.q[n] * implicit - gone * m.h[n], along = m.g[n] * implicit - gone * m.p[n];
      const Coefficient<T, own> scaled = T(1) / (T(1) + m.d[n] * implicit - gone * (m.p[n] * m.h[n]));
      put(a, n, down * scaled);
      put(s, n, along);
      put(inverse, n, scaled);
      gone += down * along * scaled;
    }
  }
};

// `count` memories of one block each, (order, W) at x[c] to y[c], which may be the same. Their recurrences run side by side, as
// each is one long chain of dependent operations. Rows that are not valid keep their memory.
template <typename T, bool adjoint, int count>
static void triangular_step(
    const Generators<T>& m, const TriangularTable<T>& table, const T* const* x, T* const* y, T* const* written,
    const typename VectorOf<T>::index* valid) {
  constexpr int width = kLanes<T>;
  Vector<T> r[count];
  for (int c = 0; c < count; ++c) r[c] = adjoint ? Vector<T>{} : m.scale * load<T>(written[c]);
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
    for (int c = 0; c < count; ++c) store<T>(written[c], valid[c] ? m.scale * r[c] : Vector<T>{});
  }
}

template <typename T, bool adjoint>
static void own_triangular_step(
    const Generators<T>& m, const StepSize<T, true>& step, const T* x, T* y, T* written,
    const typename VectorOf<T>::index& valid) {
  constexpr int width = kLanes<T>;
  const Vector<T> u = adjoint ? Vector<T>{} : load<T>(written);
  Vector<T> r = m.scale * u, first{};
  for (int64_t k = 0; k < m.order; ++k) {
    const int64_t n = adjoint ? m.order - 1 - k : k;
    const Vector<T> d = T(1) / (T(1) + m.d[n] * step.implicit);
    const Vector<T> before = load<T>(x + n * width);
    // What changes is small against what stays: keep - 1 and carry - 1 by themselves.
    Vector<T> after;
    if constexpr (adjoint) {
      after = before - d * (step.dt * m.d[n] * before + m.q[n] * r);
      r += d * m.p[n] * (step.dt * before - step.implicit * m.q[n] * r);
    } else {
      after = before + d * step.dt * (m.p[n] * r - m.d[n] * before);
      r -= d * m.q[n] * (before + step.implicit * m.p[n] * r);
    }
    if (n == 0) first = before;
    after = step.started ? (n == 0 && !adjoint ? u : Vector<T>{}) : after;
    store<T>(y + n * width, valid ? after : before);
  }
  if (adjoint) store<T>(written, valid ? (step.started ? first : m.scale * r) : Vector<T>{});
}

// The general case, in three passes; z is a workspace of (order, W). A step that starts all memories is not for this function.
template <typename T, bool own>
static void general_step(
    const Generators<T>& m, const EliminationTable<T, own>& table, const StepSize<T, own>& step, const T* x, T* y,
    const Vector<T>& u, const typename VectorOf<T>::index& valid, T* z) {
  constexpr int width = kLanes<T>;
  const Vector<T> driven = step.dt * u;
  Vector<T> above{}, below{}, gone{};
  for (int64_t n = m.order - 1; n >= 0; --n) {
    const Vector<T> before = load<T>(x + n * width);
    store<T>(z + n * width, before - step.rest * (m.d[n] * before + m.g[n] * above) + m.b[n] * driven);
    above += m.h[n] * before;
  }
  for (int64_t n = 0; n < m.order; ++n) {
    const Vector<T> w = load<T>(z + n * width) - m.p[n] * (step.rest * below + gone);
    below += m.q[n] * load<T>(x + n * width);
    gone += table.at(table.a, n) * w;
    store<T>(z + n * width, w);
  }
  Vector<T> later{};
  for (int64_t n = m.order - 1; n >= 0; --n) {
    Vector<T> after = (load<T>(z + n * width) - table.at(table.s, n) * later) * table.at(table.inverse, n);
    later += m.h[n] * after;
    if constexpr (own) after = step.started ? (n == 0 ? u : Vector<T>{}) : after;
    store<T>(y + n * width, valid ? after : load<T>(x + n * width));
  }
}

// Its transpose: v = M^-T x, y = (I + e A^T) v, and dt B . v for what was written.
template <typename T, bool own>
static Vector<T> general_adjoint(
    const Generators<T>& m, const EliminationTable<T, own>& table, const StepSize<T, own>& step, const T* x, T* y,
    const typename VectorOf<T>::index& valid, T* z) {
  constexpr int width = kLanes<T>;
  const Vector<T> first = m.order > 0 ? load<T>(x) : Vector<T>{};
  Vector<T> earlier{}, later{}, drive{}, above{};
  for (int64_t n = 0; n < m.order; ++n) {
    const Vector<T> w = (load<T>(x + n * width) - m.h[n] * earlier) * table.at(table.inverse, n);
    earlier += table.at(table.s, n) * w;
    store<T>(z + n * width, w);
  }
  for (int64_t n = m.order - 1; n >= 0; --n) {
    const Vector<T> v = load<T>(z + n * width) - table.at(table.a, n) * later;
    store<T>(z + n * width, v);
    const Vector<T> partial = v - step.rest * (m.d[n] * v + m.q[n] * later);
    later += m.p[n] * v;
    drive += m.b[n] * v;
    // The part above the diagonal is still to come, and rows that are not valid are to stay as they are.
    store<T>(y + n * width, valid ? partial : load<T>(x + n * width));
  }
  for (int64_t n = 0; n < m.order; ++n) {
    Vector<T> after = load<T>(y + n * width);
    after = valid ? after - step.rest * (m.h[n] * above) : after;
    above += m.g[n] * load<T>(z + n * width);
    if constexpr (own) after = valid && step.started ? Vector<T>{} : after;
    store<T>(y + n * width, after);
  }
  Vector<T> gradient = step.dt * drive;
  if constexpr (own) gradient = step.started ? first : gradient;
  return valid ? gradient : Vector<T>{};
}

}  // namespace seqmem::SEQMEM_ISA
