// Sums over the lanes of the vectors of a block of states: they are folded to fewer vectors for each strip of channels, added up
// over the strips, and at last summed over the lanes.
#pragma once

#include <cstdint>
#include <cstring>
#if SEQMEM_VECTOR_BYTES == 64
#include <immintrin.h>
#endif

#include "selective_scan.h"
#include "vector.h"

namespace seqmem::SEQMEM_ISA {

// Vectors of a block that is folded.
template <typename T>
constexpr int kFolded = kLanes<T> >= kStateBlock ? 1 : kStateBlock / kLanes<T>;

#if SEQMEM_VECTOR_BYTES == 64
static_assert(kStateBlock == 4);

// Adds, or stores, the sums of the quarters of each of four vectors: quarter j of the result belongs to vector j.
template <typename T>
SEQMEM_INLINE void add_folded(const Vector<T> (&x)[kStateBlock], bool adds, T* to) {
  constexpr __mmask16 all = -1, high = 0xff00;
  __m512 halves[2];
#pragma GCC unroll 2
  for (int j = 0; j < 2; ++j) {
    const __m512 first = (__m512)x[2 * j], second = (__m512)x[2 * j + 1];
    const Vector<T> outer = (Vector<T>)_mm512_mask_blend_ps(high, first, second);
    const Vector<T> inner = (Vector<T>)_mm512_maskz_shuffle_f32x4(all, first, second, 0x4e);
    halves[j] = (__m512)(outer + inner);
  }
  const Vector<T> even = (Vector<T>)_mm512_maskz_shuffle_f32x4(all, halves[0], halves[1], 0x88);
  const Vector<T> odd = (Vector<T>)_mm512_maskz_shuffle_f32x4(all, halves[0], halves[1], 0xdd);
  Vector<T> sum = even + odd;
  if (adds) sum += load<T>(to);
  store<T>(to, sum);
}

// The sum of each quarter.
template <typename T>
SEQMEM_INLINE void sum_folded(const T* from, T (&sums)[kStateBlock]) {
  Vector<T> x = load<T>(from);
  if constexpr (sizeof(T) == 4) {
    constexpr __mmask16 all = -1;
    x += (Vector<T>)_mm512_maskz_permute_ps(all, (__m512)x, 0xb1);
    x += (Vector<T>)_mm512_maskz_permute_ps(all, (__m512)x, 0x4e);
    x = (Vector<T>)_mm512_maskz_compress_ps(0x1111, (__m512)x);
  } else {
    x += (Vector<T>)_mm512_maskz_permute_pd(__mmask8(-1), (__m512d)x, 0x55);
    x = (Vector<T>)_mm512_maskz_compress_pd(0x55, (__m512d)x);
  }
  std::memcpy(sums, &x, sizeof sums);
}
#else
// Each round adds the two halves of each vector, and puts the sums of two vectors into one.
template <typename T>
SEQMEM_INLINE void add_folded(Vector<T> (&x)[kStateBlock], bool adds, T* to) {
  constexpr int width = kLanes<T>;
#pragma GCC unroll 8
  for (int half = kStateBlock / 2; half >= kFolded<T>; half /= 2) {
#pragma GCC unroll 8
    for (int j = 0; j < half; ++j) x[j] = interleave<T, false>(x[j], x[j + half]) + interleave<T, true>(x[j], x[j + half]);
  }
#pragma GCC unroll 8
  for (int j = 0; j < kFolded<T>; ++j) store<T>(to + j * width, adds ? load<T>(to + j * width) + x[j] : x[j]);
}

template <typename T>
SEQMEM_INLINE void sum_folded(const T* from, T (&sums)[kStateBlock]) {
  constexpr int width = kLanes<T>;
  for (int j = 0; j < kStateBlock; ++j) sums[j] = 0;
  for (int lane = 0; lane < width; ++lane) {
    for (int j = 0; j < kFolded<T>; ++j) sums[lane % (kStateBlock / kFolded<T>) * kFolded<T> + j] += from[j * width + lane];
  }
}
#endif

}  // namespace seqmem::SEQMEM_ISA
