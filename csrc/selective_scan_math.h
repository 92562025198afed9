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

#if SEQMEM_VECTOR_BYTES == 64
// 2^(k / 16) times the leading coefficient of the polynomial below
alignas(64) static constexpr float kRootsOfTwo[16] = {
    0x1.c55e10p-5f, 0x1.d97092p-5f, 0x1.ee6694p-5f, 0x1.022514p-4f, 0x1.0d92eap-4f, 0x1.19824ap-4f,
    0x1.25f8f0p-4f, 0x1.32fcd8p-4f, 0x1.409446p-4f, 0x1.4ec5bep-4f, 0x1.5d9816p-4f, 0x1.6d126ap-4f,
    0x1.7d3c2cp-4f, 0x1.8e1d20p-4f, 0x1.9fbd62p-4f, 0x1.b2256ap-4f};

// In place 2^x = 2^floor(k) 2^(k - floor(k)) 2^f of f = x - k, with k = x rounded to 1/16. A table of 16 numbers in one
// register has the second factor, and a polynomial of degree 3 is the third: with |f| <= 1/32, (2^f - 1) / f has a relative
// error of 1e-7. Its leading coefficient is in the table, so that the first of its three steps is an addition, for which the
// processor has other units than for products. Among those near the best one it is the coefficient whose table is most precise,
// and for which 2^0 is 1.
template <int n>
SEQMEM_INLINE void power_of_two_by_table(Vector<float> (&f)[n], const Vector<float> (&k)[n]) {
  constexpr float last_place = 0x1.8p19f;  // adding it leaves the sixteenths in the low bits
  constexpr float c2 = 0x1.15d0f0p+2f, c1 = 0x1.90c9d2p+3f, c0 = 0x1.211b90p+4f;
  const Vector<float> table = load<float>(kRootsOfTwo);
  Vector<float> power[n], root[n];
#pragma GCC unroll 8
  for (int j = 0; j < n; ++j) {
    const Vector<float> index = k[j] + last_place;
    root[j] = (Vector<float>)_mm512_maskz_permutexvar_ps(__mmask16(-1), (__m512i)index, (__m512)table);
    power[j] = f[j] + c2;
  }
#pragma GCC unroll 8
  for (int j = 0; j < n; ++j) power[j] = power[j] * f[j] + c1;
#pragma GCC unroll 8
  for (int j = 0; j < n; ++j) power[j] = power[j] * f[j] + c0;
#pragma GCC unroll 8
  for (int j = 0; j < n; ++j) {
    power[j] = power[j] * root[j];
    f[j] = (Vector<float>)_mm512_maskz_scalef_ps(__mmask16(-1), (__m512)power[j], (__m512)k[j]);
  }
}

SEQMEM_INLINE Vector<float> to_sixteenths(const Vector<float>& x) {
  constexpr int four_places_to_nearest = 4 << 4 | 8;
  return (Vector<float>)_mm512_maskz_roundscale_ps(__mmask16(-1), (__m512)x, four_places_to_nearest);
}

template <int n>
SEQMEM_INLINE void power_of_two_by_table(Vector<float> (&x)[n]) {
  Vector<float> k[n];
#pragma GCC unroll 8
  for (int j = 0; j < n; ++j) {
    k[j] = to_sixteenths(x[j]);
    x[j] = x[j] - k[j];
  }
  power_of_two_by_table<n>(x, k);
}
#endif

#if SEQMEM_VECTOR_BYTES == 64
// Leaves x - k in x and returns k, the nearest integer.
template <typename T>
SEQMEM_INLINE Vector<T> take_integer(Vector<T>& x) {
  constexpr int to_nearest = 8;
  const Vector<T> k = (Vector<T>)_mm512_maskz_roundscale_pd(__mmask8(-1), (__m512d)x, to_nearest);
  x = x - k;
  return k;
}

// x 2^k
template <typename T>
SEQMEM_INLINE Vector<T> scaled(const Vector<T>& x, const Vector<T>& k) {
  return (Vector<T>)_mm512_maskz_scalef_pd(__mmask8(-1), (__m512d)x, (__m512d)k);
}
#else
// Leaves x - k in x, clamped, and returns the nearest integer k in the low bits of a number.
template <typename T>
SEQMEM_INLINE Vector<T> take_integer(Vector<T>& x) {
  x = clamp<T>(x, PowerOfTwo<T>::min, PowerOfTwo<T>::max);
  const Vector<T> k = x + ExpConstants<T>::round;
  x = x - (k - ExpConstants<T>::round);
  return k;
}

// x 2^k of such a k
template <typename T>
SEQMEM_INLINE Vector<T> scaled(const Vector<T>& x, const Vector<T>& k) {
  typename VectorOf<T>::index bits;
  std::memcpy(&bits, &k, sizeof bits);
  bits = (bits << ExpConstants<T>::mantissa) + ExpConstants<T>::one;
  Vector<T> power;
  std::memcpy(&power, &bits, sizeof bits);
  return x * power;
}
#endif

// In place 2^x = 2^k 2^f with x = k + f and |f| <= 1/2, n vectors interleaved.
template <typename T, int n>
SEQMEM_INLINE void power_of_two(Vector<T> (&x)[n]) {
#if SEQMEM_VECTOR_BYTES == 64
  if constexpr (sizeof(T) == 4) {
    power_of_two_by_table<n>(x);
    return;
  }
#endif
  constexpr auto& coefficients = PowerOfTwo<T>::coefficients;
  constexpr int last = PowerOfTwo<T>::terms - 1;
  Vector<T> k[n], power[n];
#pragma GCC unroll 8
  for (int j = 0; j < n; ++j) {
    k[j] = take_integer<T>(x[j]);
    power[j] = broadcast<T>(coefficients[last]);
  }
#pragma GCC unroll 16
  for (int term = last - 1; term >= 0; --term) {
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) power[j] = power[j] * x[j] + coefficients[term];
  }
#pragma GCC unroll 8
  for (int j = 0; j < n; ++j) x[j] = scaled<T>(power[j] * x[j] + T(1), k[j]);
}

// Beyond this x softplus(x) is x, as in torch. In float32 it is anyway.
constexpr int kLinearSoftplus = 20;

template <typename T>
SEQMEM_INLINE Vector<T> at_least(const Vector<T>& x, T min) {
  const Vector<T> low = broadcast<T>(min);
#if SEQMEM_VECTOR_BYTES == 64
  // One instruction; GCC does not generate it from the comparison below.
  if constexpr (sizeof(T) == 4) return (Vector<T>)_mm512_maskz_max_ps(__mmask16(-1), (__m512)low, (__m512)x);
#endif
  return x < low ? low : x;
}

// In place exp(x) of clamped numbers, n vectors interleaved.
template <typename T, int n>
SEQMEM_INLINE void exp_of(Vector<T> (&x)[n]) {
  Vector<T> k[n], rest[n];
#if SEQMEM_VECTOR_BYTES == 64
  if constexpr (sizeof(T) == 4) {
    constexpr float log2_e = ExpConstants<T>::log2_e, log2_e_low = 0x1.4ae0c0p-26f;
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) {
      k[j] = to_sixteenths(x[j] * log2_e);
      // GCC would round the product, of which it needs the rounded value too.
      const Vector<float> rest = (Vector<float>)_mm512_fmsub_ps((__m512)x[j], _mm512_set1_ps(log2_e), (__m512)k[j]);
      x[j] = x[j] * log2_e_low + rest;
    }
    power_of_two_by_table<n>(x, k);
    return;
  }
#endif
  split_exp<T, n>(x, k, rest);
#pragma GCC unroll 8
  for (int j = 0; j < n; ++j) x[j] = k[j] * rest[j] + k[j];
}

// log(1 + y) of y from 0 to 1; in float32 y times a polynomial that is 1 at 0, interpolated at Chebyshev points, with a
// relative error of 3e-8 before rounding.
template <typename T, int n>
SEQMEM_INLINE void log1p_of_exp(const Vector<T> (&y)[n], Vector<T> (&log)[n]) {
  if constexpr (sizeof(T) == 4) {
    constexpr float c[] = {1.0f,           -0x1.fffffep-2f, 0x1.55540cp-2f,  -0x1.ffb95cp-3f, 0x1.969cb2p-3f,
                           -0x1.448ee2p-3f, 0x1.d992bcp-4f,  -0x1.11708cp-4f, 0x1.9d455ap-6f,  -0x1.24b298p-8f};
    Vector<T> square[n], odd[n];
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) {
      square[j] = y[j] * y[j];
      odd[j] = square[j] * c[9] + c[7];
      log[j] = square[j] * c[8] + c[6];
    }
#pragma GCC unroll 8
    for (int term = 4; term >= 0; term -= 2) {
#pragma GCC unroll 8
      for (int j = 0; j < n; ++j) {
        odd[j] = odd[j] * square[j] + c[term + 1];
        log[j] = log[j] * square[j] + c[term];
      }
    }
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) log[j] = (odd[j] * y[j] + log[j]) * y[j];
  } else {
    for (int j = 0; j < n; ++j) log[j] = log1p_of_unit<T>(y[j]);
  }
}

// sigmoid(z), the factor of SiLU(z) = z sigmoid(z)
template <typename T, int n>
SEQMEM_INLINE void opening(const Vector<T> (&z)[n], Vector<T> (&opened)[n]) {
  if constexpr (sizeof(T) == 4 && SEQMEM_VECTOR_BYTES == 64) {
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) opened[j] = clamp<T>(-z[j], ExpConstants<T>::min, ExpConstants<T>::max);
    exp_of<T, n>(opened);
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) opened[j] = reciprocal<T>(opened[j] + T(1));
  } else {
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) opened[j] = z[j];
    sigmoid_tanh<T, n, 0>(opened);
  }
}

// In place softplus(x) = log(1 + exp(x)) = max(x, 0) + log(1 + y) with y = exp(-|x|); and its slope, 1 / (1 + exp(-x)).
template <typename T, int n>
SEQMEM_INLINE void softplus(Vector<T> (&x)[n], Vector<T> (&slope)[n]) {
  Vector<T> y[n], log[n];
#pragma GCC unroll 8
  for (int j = 0; j < n; ++j) y[j] = at_least<T>(minus_absolute<T>(x[j]), ExpConstants<T>::min);
  exp_of<T, n>(y);
  log1p_of_exp<T, n>(y, log);
#pragma GCC unroll 8
  for (int j = 0; j < n; ++j) {
    slope[j] = reciprocal<T>(y[j] + T(1)) * (x[j] < T(0) ? y[j] : broadcast<T>(T(1)));
    const Vector<T> value = at_least<T>(x[j], T(0)) + log[j];
    if constexpr (sizeof(T) == 4) {
      x[j] = value;
    } else {
      const auto is_linear = x[j] > T(kLinearSoftplus);
      slope[j] = is_linear ? broadcast<T>(T(1)) : slope[j];
      x[j] = is_linear ? x[j] : value;
    }
  }
}

}  // namespace seqmem::SEQMEM_ISA
