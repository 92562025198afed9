// Vectorised powers of two and softplus, accurate to a few units in the last place.
#pragma once

#include <cstdint>
#if SEQMEM_VECTOR_BYTES == 64
#include <immintrin.h>
#endif

#include "log1p.h"
#include "sequence_math.h"
#include "vector.h"

namespace seqmem::SEQMEM_ISA {

// Coefficients of (2^f - 1) / f on [-1/2, 1/2], interpolated at Chebyshev points. Relative errors of 2^f, before rounding: 1e-8
// and 2e-17, and in proportion to f, so that a factor near 1 decays at the right rate.
template <typename T>
struct PowerOfTwo;
template <>
struct PowerOfTwo<float> {
  static constexpr int terms = 6;
  static constexpr float coefficients[terms] = {
      0x1.62e430p-1f, 0x1.ebfbe0p-3f, 0x1.c6af6cp-5f, 0x1.3b2a54p-7f, 0x1.5f0890p-10f, 0x1.44138ap-13f};
  static constexpr float min = -126.0f, max = 128.0f;
};
template <>
struct PowerOfTwo<double> {
  static constexpr int terms = 11;
  static constexpr double coefficients[terms] = {
      0x1.62e42fefa39efp-1,  0x1.ebfbdff82c598p-3,  0x1.c6b08d704a0c2p-5,  0x1.3b2ab6fba1ddap-7,
      0x1.5d87fe78a5276p-10, 0x1.430913096fd9fp-13, 0x1.ffcbfc670dcd4p-17, 0x1.62bfd47773353p-20,
      0x1.b524fae627834p-24, 0x1.e6063f7217bc6p-28, 0x1.e9d3fe3952179p-32};
  static constexpr double min = -1022.0, max = 1024.0;
};

// In place 2^x = scale 2^f with x = k + f and |f| <= 1/2, n vectors interleaved.
template <typename T, int n>
SEQMEM_INLINE void power_of_two(Vector<T> (&x)[n]) {
  using Constants = PowerOfTwo<T>;
  Vector<T> k[n], power[n];
#pragma GCC unroll 8
  for (int j = 0; j < n; ++j) {
#if SEQMEM_VECTOR_BYTES == 64
    constexpr int nearest = 8;
    if constexpr (sizeof(T) == 4) {
      k[j] = (Vector<T>)_mm512_maskz_roundscale_ps(__mmask16(-1), (__m512)x[j], nearest);
    } else {
      k[j] = (Vector<T>)_mm512_maskz_roundscale_pd(__mmask8(-1), (__m512d)x[j], nearest);
    }
#else
    x[j] = clamp<T>(x[j], Constants::min, Constants::max);
    k[j] = x[j] + ExpConstants<T>::round;
#endif
  }
#pragma GCC unroll 8
  for (int j = 0; j < n; ++j) {
#if SEQMEM_VECTOR_BYTES == 64
    x[j] = x[j] - k[j];
#else
    x[j] = x[j] - (k[j] - ExpConstants<T>::round);
#endif
    power[j] = broadcast<T>(Constants::coefficients[Constants::terms - 1]);
  }
#pragma GCC unroll 16
  for (int term = Constants::terms - 2; term >= 0; --term) {
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) power[j] = power[j] * x[j] + Constants::coefficients[term];
  }
#pragma GCC unroll 8
  for (int j = 0; j < n; ++j) {
    power[j] = power[j] * x[j] + T(1);
#if SEQMEM_VECTOR_BYTES == 64
    if constexpr (sizeof(T) == 4) {
      x[j] = (Vector<T>)_mm512_maskz_scalef_ps(__mmask16(-1), (__m512)power[j], (__m512)k[j]);
    } else {
      x[j] = (Vector<T>)_mm512_maskz_scalef_pd(__mmask8(-1), (__m512d)power[j], (__m512d)k[j]);
    }
#else
    typename VectorOf<T>::index bits;
    std::memcpy(&bits, &k[j], sizeof bits);
    bits = (bits << ExpConstants<T>::mantissa) + ExpConstants<T>::one;
    Vector<T> scale;
    std::memcpy(&scale, &bits, sizeof bits);
    x[j] = power[j] * scale;
#endif
  }
}

// Beyond this x softplus(x) is x, as in torch.
constexpr int kLinearSoftplus = 20;

// softplus(x) = log(1 + exp(x)) = max(x, 0) + log(1 + y) with y = exp(-|x|); and its derivative, 1 / (1 + exp(-x)).
template <typename T>
SEQMEM_INLINE Vector<T> softplus(const Vector<T>& x, Vector<T>& derivative) {
  const Vector<T> exponent[1] = {clamp<T>(minus_absolute<T>(x), ExpConstants<T>::min, T(0))};
  Vector<T> scale[1], rest[1];
  split_exp<T, 1>(exponent, scale, rest);
  const Vector<T> y = scale[0] * rest[0] + scale[0], inverse = reciprocal<T>(y + T(1));
  const Vector<T> value = (x > T(0) ? x : Vector<T>{}) + log1p_of_unit<T>(y);
  const auto is_linear = x > T(kLinearSoftplus);
  derivative = is_linear ? broadcast<T>(T(1)) : x < T(0) ? y * inverse : inverse;
  return is_linear ? x : value;
}

}  // namespace seqmem::SEQMEM_ISA
