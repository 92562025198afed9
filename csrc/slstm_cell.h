// One step of W units of one row of an sLSTM, forward and backward.
#pragma once

#include "log1p.h"
#include "sequence_math.h"
#include "slstm.h"

namespace seqmem::SEQMEM_ISA {

// The gates' sums of W units, their state before and then after the step, and the saved numbers.
template <typename T>
struct SlstmUnits {
  Vector<T> gates[kSlstmGates], y, c, n, m, saved[kSlstmSaved];
};

// The states c and n of W units after a step.
template <typename T>
SEQMEM_INLINE void slstm_memory_step(const Vector<T>& signed_factor, const Vector<T>& z, Vector<T>& c, Vector<T>& n) {
  const Vector<T> one = broadcast<T>(T(1));
  const auto enters = signed_factor < T(0);
  const Vector<T> factor = enters ? -signed_factor : signed_factor;
  const Vector<T> forget = enters ? factor : one, entry = enters ? one : factor;
  c = forget * c + entry * z;
  n = forget * n + entry;
}

// Steps `count` vectors of units, interleaved where one chain of dependent operations would wait for itself.
template <typename T, int count>
SEQMEM_INLINE void slstm_forward_units(SlstmUnits<T> (&units)[count]) {
  using Constants = ExpConstants<T>;
  Vector<T> kept[count], gap[count], distance[count], scale[count], rest[count];
#pragma GCC unroll 8
  for (int j = 0; j < count; ++j) {
    SlstmUnits<T>& u = units[j];
    const Vector<T> f = u.gates[1];
    Vector<T> x[] = {
        clamp<T>(minus_absolute<T>(f), Constants::min, T(0)),
        T(2) * clamp<T>(u.gates[2], -Constants::tanh_is_one, Constants::tanh_is_one),
        clamp<T>(-u.gates[3], Constants::min, Constants::max)};
    Vector<T> scales[3], rests[3];
    split_exp<T, 3>(x, scales, rests);
    const Vector<T> q = scales[0] * rests[0] + scales[0];  // exp(-|f|)
    const Vector<T> greater = reciprocal<T>(q + T(1));     // sigmoid(|f|)
    const Vector<T> exp_minus_one = scales[1] * rests[1] + (scales[1] - T(1));
    u.saved[1] = exp_minus_one * reciprocal<T>(exp_minus_one + T(2));
    u.saved[2] = reciprocal<T>(scales[2] * rests[2] + (scales[2] + T(1)));
    u.saved[3] = f < T(0) ? greater : q * greater;
    kept[j] = u.m + ((f < T(0) ? f : Vector<T>{}) - log1p_of_unit<T>(q));
    gap[j] = kept[j] - u.gates[0];
    distance[j] = clamp<T>(minus_absolute<T>(gap[j]), Constants::min, T(0));
  }
  split_exp<T, count>(distance, scale, rest);
#pragma GCC unroll 8
  for (int j = 0; j < count; ++j) {
    SlstmUnits<T>& u = units[j];
    const Vector<T> one = broadcast<T>(T(1)), smaller = scale[j] * rest[j] + scale[j];
    const auto empty = u.n == T(0);
    const auto enters = (gap[j] < T(0)) | empty;  // m' = i
    const Vector<T> factor = (empty & (gap[j] > T(0))) ? one : smaller;
    const Vector<T> forget = enters ? factor : one, entry = enters ? one : factor;
    u.m = enters ? u.gates[0] : kept[j];
    u.c = forget * u.c + entry * u.saved[1];
    u.n = forget * u.n + entry;
    u.y = u.saved[2] * (u.c / u.n);
    u.saved[0] = enters ? -factor : factor;
  }
}

// Gradients of W units: of y, c and n after the step, then before it; `m` is the part of the gradient of m that is not due to
// the same c exp(m) and n exp(m).
template <typename T>
struct SlstmGradients {
  Vector<T> y, c, n, m, gates[kSlstmGates];
};

template <typename T>
SEQMEM_INLINE void slstm_backward_units(
    const Vector<T> (&saved)[kSlstmSaved], const Vector<T>& c_before, const Vector<T>& n_before, SlstmGradients<T>& d) {
  const Vector<T> zero{}, one = broadcast<T>(T(1)), z = saved[1], o = saved[2];
  const auto enters = saved[0] < T(0);
  const Vector<T> factor = enters ? -saved[0] : saved[0];
  const Vector<T> forget = enters ? factor : one, entry = enters ? one : factor;
  const Vector<T> inverse = reciprocal<T>(forget * n_before + entry);
  const Vector<T> ratio = (forget * c_before + entry * z) * inverse, scaled = d.y * o;
  const Vector<T> dc = d.c + scaled * inverse, dn = d.n - scaled * inverse * ratio;
  // Of l = m + log sigmoid(f), if exp(l - m') is not the constant 1 of an empty memory.
  const Vector<T> dl = forget * (dc * c_before + dn * n_before);
  const auto constant = enters & (n_before == T(0)) & (factor == T(1));
  d.gates[0] = entry * (dc * z + dn) + (enters ? d.m : zero) + (constant ? dl : zero);
  d.gates[1] = (constant ? zero : dl + (enters ? zero : d.m)) * saved[3];
  d.gates[2] = dc * entry * (T(1) - z * z);
  d.gates[3] = scaled * (T(1) - o) * ratio;
  d.m = constant ? -dl : enters ? zero : d.m;
  d.c = forget * dc;
  d.n = forget * dn;
  d.y = zero;
}

}  // namespace seqmem::SEQMEM_ISA
