// W = kLanes<T> numbers in one register, and tiles of W such registers.
//
// The recurrences of this folder are serial along the memory order, so a vector holds the same coefficient of W rows. Rows lie
// one after the other in storage: a W x W tile is read row by row and transposed in registers.
//
// Compiled once for every instruction set: SEQMEM_ISA names the namespace, SEQMEM_VECTOR_BYTES the width of a register.
#pragma once

#include <cstdint>
#include <cstring>
#if SEQMEM_VECTOR_BYTES == 64
#include <immintrin.h>
#endif

namespace seqmem::SEQMEM_ISA {

template <typename T>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(SEQMEM_VECTOR_BYTES)));
  typedef int32_t index __attribute__((vector_size(SEQMEM_VECTOR_BYTES)));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(SEQMEM_VECTOR_BYTES)));
  typedef int64_t index __attribute__((vector_size(SEQMEM_VECTOR_BYTES)));
};

template <typename T>
using Vector = typename VectorOf<T>::type;
template <typename T>
constexpr int kLanes = SEQMEM_VECTOR_BYTES / sizeof(T);

#define SEQMEM_INLINE static inline __attribute__((always_inline))

template <typename T>
SEQMEM_INLINE Vector<T> load(const T* from) {
  Vector<T> value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <typename T>
SEQMEM_INLINE void store(T* to, const Vector<T>& value) {
  std::memcpy(to, &value, sizeof value);
}

// Stores past the caches, for what is not read again soon: no line is fetched before it is overwritten, and none is driven out.
// Only where a vector is a whole line, at an address that is a multiple of its size. `finish_streams` before others read it.
constexpr bool kCanStream = SEQMEM_VECTOR_BYTES == 64;

template <typename T>
SEQMEM_INLINE void stream(T* to, const Vector<T>& value) {
#if SEQMEM_VECTOR_BYTES == 64
  __m512 bits;
  std::memcpy(&bits, &value, sizeof bits);
  _mm512_stream_ps(reinterpret_cast<float*>(to), bits);
#else
  store<T>(to, value);
#endif
}

SEQMEM_INLINE void finish_streams() {
#if SEQMEM_VECTOR_BYTES == 64
  _mm_sfence();
#endif
}

template <typename T>
SEQMEM_INLINE Vector<T> broadcast(T value) {
  return Vector<T>{} + value;
}

// (before_{W-1}, a_0, ..., a_{W-2})
template <typename T>
SEQMEM_INLINE Vector<T> shift_in(const Vector<T>& before, const Vector<T>& a) {
  constexpr int width = kLanes<T>;
#if defined(__clang__)
  Vector<T> moved;
  for (int j = 0; j < width; ++j) moved[j] = j == 0 ? before[width - 1] : a[j - 1];
  return moved;
#else
  typename VectorOf<T>::index lanes;
  for (int j = 0; j < width; ++j) lanes[j] = width - 1 + j;
  return __builtin_shuffle(before, a, lanes);
#endif
}

// (a_h, b_h, a_{h+1}, b_{h+1}, ...) with h = 0 for the low halves and h = W/2 for the high ones
template <typename T, bool high>
SEQMEM_INLINE Vector<T> interleave(const Vector<T>& a, const Vector<T>& b) {
  constexpr int width = kLanes<T>;
#if defined(__clang__)
  Vector<T> mixed;
  for (int j = 0; j < width; ++j) mixed[j] = (j % 2 ? b : a)[j / 2 + (high ? width / 2 : 0)];
  return mixed;
#else
  typename VectorOf<T>::index lanes;
  for (int j = 0; j < width; ++j) lanes[j] = j / 2 + (high ? width / 2 : 0) + (j % 2 ? width : 0);
  return __builtin_shuffle(a, b, lanes);
#endif
}

// Transpose in place by log2(W) perfect shuffles: each round interleaves the first half of the vectors with the second.
template <typename T>
SEQMEM_INLINE void transpose(Vector<T> (&tile)[kLanes<T>]) {
  constexpr int width = kLanes<T>;
#pragma GCC unroll 4
  for (int round = 1; round < width; round *= 2) {
    Vector<T> mixed[width];
#pragma GCC unroll 16
    for (int j = 0; j < width / 2; ++j) {
      mixed[2 * j] = interleave<T, false>(tile[j], tile[j + width / 2]);
      mixed[2 * j + 1] = interleave<T, true>(tile[j], tile[j + width / 2]);
    }
#pragma GCC unroll 16
    for (int j = 0; j < width; ++j) tile[j] = mixed[j];
  }
}

// Read columns [column, column + columns) of `rows` rows so that tile[c] holds column c of every row. Missing rows repeat the
// last one and missing columns are zero, so that no lane ever computes with garbage.
template <typename T>
SEQMEM_INLINE void load_tile(const T* from, int64_t stride, int rows, int64_t column, int columns, Vector<T> (&tile)[kLanes<T>]) {
  constexpr int width = kLanes<T>;
  if (rows == width && columns == width) {
#pragma GCC unroll 16
    for (int j = 0; j < width; ++j) tile[j] = load<T>(from + j * stride + column);
  } else {
    for (int j = 0; j < width; ++j) {
      tile[j] = Vector<T>{};
      std::memcpy(&tile[j], from + (j < rows ? j : rows - 1) * stride + column, columns * sizeof(T));
    }
  }
  transpose<T>(tile);
}

// The inverse of load_tile; missing rows and columns are not written. The tile is left transposed.
template <typename T>
SEQMEM_INLINE void store_tile(T* to, int64_t stride, int rows, int64_t column, int columns, Vector<T> (&tile)[kLanes<T>]) {
  constexpr int width = kLanes<T>;
  transpose<T>(tile);
  if (rows == width && columns == width) {
#pragma GCC unroll 16
    for (int j = 0; j < width; ++j) store<T>(to + j * stride + column, tile[j]);
  } else {
    for (int j = 0; j < rows; ++j) std::memcpy(to + j * stride + column, &tile[j], columns * sizeof(T));
  }
}

}  // namespace seqmem::SEQMEM_ISA
