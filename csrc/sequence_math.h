// Vectorised tanh and sigmoid, accurate to a few units in the last place, and the cells' activations.
#pragma once

#include <cstdint>
#if SEQMEM_VECTOR_BYTES == 64
#include <immintrin.h>
#endif

#include "sequence.h"
#include "vector.h"

namespace seqmem::SEQMEM_ISA {

template <typename T>
struct ExpConstants;
template <>
struct ExpConstants<float> {
  static constexpr float round = 0x1.8p23f;  // adding it rounds to an integer and leaves that in the low bits
  static constexpr float log2_e = 0x1.715476p+0f, ln2_high = 0x1.62e400p-1f, ln2_low = 0x1.7f7d1cp-20f;
  static constexpr float min = -87.0f, max = 88.0f;
  static constexpr float tanh_is_one = 9.25f;
  static constexpr int terms = 7, mantissa = 23;
  static constexpr int32_t one = 0x3f800000;
};
template <>
struct ExpConstants<double> {
  static constexpr double round = 0x1.8p52;
  static constexpr double log2_e = 0x1.71547652b82fep+0, ln2_high = 0x1.62e42fefa0000p-1, ln2_low = 0x1.cf79abc9e3b3ap-40;
  static constexpr double min = -708.0, max = 709.0;
  static constexpr double tanh_is_one = 19.5;
  static constexpr int terms = 13, mantissa = 52;
  static constexpr int64_t one = 0x3ff0000000000000;
};

// Clamps each number; NaN stays NaN.
template <typename T>
SEQMEM_INLINE Vector<T> clamp(const Vector<T>& x, T min, T max) {
  const Vector<T> low = broadcast<T>(min), high = broadcast<T>(max);
#if SEQMEM_VECTOR_BYTES == 64
  // One instruction each; GCC does not generate it from the comparisons below.
  if constexpr (sizeof(T) == 4) {
    const __m512 at_least_min = _mm512_maskz_max_ps(__mmask16(-1), (__m512)low, (__m512)x);
    return (Vector<T>)_mm512_maskz_min_ps(__mmask16(-1), (__m512)high, at_least_min);
  }
#endif
  const Vector<T> at_least_min = x < low ? low : x;
  return at_least_min > high ? high : at_least_min;
}

// exp(x) = scale (1 + rest): x = k ln 2 + f with |f| <= ln(2) / 2, scale = 2^k, and rest = exp(f) - 1 by its Taylor series.
// Runs n vectors interleaved, because the series of one vector is a single dependency chain.
template <typename T, int n>
SEQMEM_INLINE void split_exp(const Vector<T> (&x)[n], Vector<T> (&scale)[n], Vector<T> (&rest)[n]) {
  using Constants = ExpConstants<T>;
  using Index = typename VectorOf<T>::index;
  Vector<T> f[n];
#pragma GCC unroll 8
  for (int j = 0; j < n; ++j) {
    const Vector<T> shifted = x[j] * Constants::log2_e + Constants::round;
    const Vector<T> k = shifted - Constants::round;
    f[j] = (x[j] - k * Constants::ln2_high) - k * Constants::ln2_low;
    Index bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << Constants::mantissa) + Constants::one;
    std::memcpy(&scale[j], &bits, sizeof bits);
  }
  double inverse[Constants::terms + 1] = {1, 1};
  for (int term = 2; term <= Constants::terms; ++term) inverse[term] = inverse[term - 1] / term;
#pragma GCC unroll 8
  for (int j = 0; j < n; ++j) rest[j] = broadcast<T>(T(inverse[Constants::terms]));
#pragma GCC unroll 16
  for (int term = Constants::terms - 1; term >= 2; --term) {
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) rest[j] = rest[j] * f[j] + T(inverse[term]);
  }
#pragma GCC unroll 8
  for (int j = 0; j < n; ++j) rest[j] = rest[j] * (f[j] * f[j]) + f[j];
}

template <typename T>
SEQMEM_INLINE Vector<T> reciprocal(const Vector<T>& x) {
#if SEQMEM_VECTOR_BYTES == 64
  if constexpr (sizeof(T) == 4) {
    const Vector<T> guess = (Vector<T>)_mm512_maskz_rcp14_ps(__mmask16(-1), (__m512)x);
    return guess + guess * (T(1) - x * guess);
  }
#endif
  return T(1) / x;
}

// In place: sigmoid 1 / (exp(-x) + 1) of the first `sigmoids` vectors and tanh (exp(2x) - 1) / (exp(2x) + 1) of the next
// `tanhs`, where exp(2x) - 1 is free of cancellation.
template <typename T, int sigmoids, int tanhs>
SEQMEM_INLINE void sigmoid_tanh(Vector<T> (&x)[sigmoids + tanhs]) {
  constexpr int n = sigmoids + tanhs;
  using Constants = ExpConstants<T>;
  Vector<T> scale[n], rest[n];
#pragma GCC unroll 8
  for (int j = 0; j < n; ++j) {
    x[j] = j < sigmoids ? clamp<T>(-x[j], Constants::min, Constants::max)
                        : T(2) * clamp<T>(x[j], -Constants::tanh_is_one, Constants::tanh_is_one);
  }
  split_exp<T, n>(x, scale, rest);
#pragma GCC unroll 8
  for (int j = 0; j < n; ++j) {
    if (j < sigmoids) {
      x[j] = reciprocal<T>(scale[j] * rest[j] + (scale[j] + T(1)));
    } else {
      const Vector<T> exp_minus_one = scale[j] * rest[j] + (scale[j] - T(1));
      x[j] = exp_minus_one * reciprocal<T>(exp_minus_one + T(2));
    }
  }
}

template <typename T>
SEQMEM_INLINE Vector<T> tanh(const Vector<T>& x) {
  Vector<T> y[] = {x};
  sigmoid_tanh<T, 0, 1>(y);
  return y[0];
}

template <typename T>
SEQMEM_INLINE Vector<T> sigmoid(const Vector<T>& x) {
  Vector<T> y[] = {x};
  sigmoid_tanh<T, 1, 0>(y);
  return y[0];
}

template <typename T>
SEQMEM_INLINE Vector<T> activate(Activation kind, const Vector<T>& x) {
  switch (kind) {
    case Activation::tanh:
      return tanh<T>(x);
    case Activation::sigmoid:
      return sigmoid<T>(x);
    case Activation::relu:
      return x < T(0) ? Vector<T>{} : x;
    case Activation::identity:
      break;
  }
  return x;
}

// Derivative of an activation, from its value y.
template <typename T>
SEQMEM_INLINE Vector<T> derivative(Activation kind, const Vector<T>& y) {
  switch (kind) {
    case Activation::tanh:
      return T(1) - y * y;
    case Activation::sigmoid:
      return y * (T(1) - y);
    case Activation::relu:
      return y > T(0) ? broadcast<T>(T(1)) : Vector<T>{};
    case Activation::identity:
      break;
  }
  return broadcast<T>(T(1));
}

}  // namespace seqmem::SEQMEM_ISA
