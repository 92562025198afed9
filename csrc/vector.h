// Vectors of W = kLanes<T> numbers in one register, and tiles of W vectors.
//
// The recurrences are serial along the memory order, so a vector holds one coefficient of W rows. Rows are contiguous in
// memory: a W x W tile is loaded row by row and transposed in registers.
//
// Compiled once per instruction set: SEQMEM_ISA names the namespace, SEQMEM_VECTOR_BYTES is the width of a register.
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

// Non-temporal store, for data that is not read again soon: it neither fetches nor evicts a cache line. Requires vectors of a
// whole cache line at aligned addresses, and `finish_streams` before another thread reads the data.
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
  Vector<T> shifted;
  for (int j = 0; j < width; ++j) shifted[j] = j == 0 ? before[width - 1] : a[j - 1];
  return shifted;
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
  Vector<T> shuffled;
  for (int j = 0; j < width; ++j) shuffled[j] = (j % 2 ? b : a)[j / 2 + (high ? width / 2 : 0)];
  return shuffled;
#else
  typename VectorOf<T>::index lanes;
  for (int j = 0; j < width; ++j) lanes[j] = j / 2 + (high ? width / 2 : 0) + (j % 2 ? width : 0);
  return __builtin_shuffle(a, b, lanes);
#endif
}

// Transposes in place by log2(W) perfect shuffles: each round interleaves the first half of the vectors with the second.
template <typename T>
SEQMEM_INLINE void transpose(Vector<T> (&tile)[kLanes<T>]) {
  constexpr int width = kLanes<T>;
#pragma GCC unroll 4
  for (int round = 1; round < width; round *= 2) {
    Vector<T> shuffled[width];
#pragma GCC unroll 16
    for (int j = 0; j < width / 2; ++j) {
      shuffled[2 * j] = interleave<T, false>(tile[j], tile[j + width / 2]);
      shuffled[2 * j + 1] = interleave<T, true>(tile[j], tile[j + width / 2]);
    }
#pragma GCC unroll 16
    for (int j = 0; j < width; ++j) tile[j] = shuffled[j];
  }
}

// Loads columns [column, column + columns) of `rows` rows, so that tile[c] holds column c of every row. Missing rows repeat the
// last row and missing columns are zero, so that every lane computes with defined values.
template <typename T>
SEQMEM_INLINE void load_tile(
    const T* from, int64_t stride, int rows, int64_t column, int columns, Vector<T> (&tile)[kLanes<T>]) {
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

// Inverse of load_tile: stores no missing rows and columns. Leaves the tile transposed.
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

template <typename T>
static T dot(const T* a, const T* b, int64_t count) {
  constexpr int width = kLanes<T>;
  Vector<T> sums{};
  int64_t k = 0;
  for (; k + width <= count; k += width) sums += load<T>(a + k) * load<T>(b + k);
  T sum = 0;
  if (k > 0) {
    for (int j = 0; j < width; ++j) sum += sums[j];
  }
  for (; k < count; ++k) sum += a[k] * b[k];
  return sum;
}

}  // namespace seqmem::SEQMEM_ISA
