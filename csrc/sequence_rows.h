// Workspace allocation, prefetching, partial vectors, and conversion between rows and lanes.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "sequence.h"
#include "vector.h"

namespace seqmem::SEQMEM_ISA {

// Bump allocator over a group's workspace. With a null base it only computes the size.
template <typename T>
struct Arena {
  T* base;
  int64_t used = 0;

  T* allocate(int64_t numbers) {
    T* const piece = base == nullptr ? nullptr : base + used;
    used += round_up(numbers, kMaxLanes);
    return piece;
  }
};

// Software prefetch: batch rows are far apart in memory, so the hardware does not detect the stride from one step to the next.
template <typename T>
SEQMEM_INLINE void prefetch(const T* from, int64_t count) {
  for (int64_t k = 0; k < count; k += 64 / int64_t(sizeof(T))) __builtin_prefetch(from + k);
}
template <typename T>
SEQMEM_INLINE void prefetch_for_write(T* to, int64_t count) {
  for (int64_t k = 0; k < count; k += 64 / int64_t(sizeof(T))) __builtin_prefetch(to + k, 1);
}

template <typename T>
SEQMEM_INLINE Vector<T> load_partial(const T* from, int64_t count) {
  if (count >= kLanes<T>) return load<T>(from);
  Vector<T> value{};
  for (int64_t j = 0; j < count; ++j) value[j] = from[j];
  return value;
}

template <typename T>
SEQMEM_INLINE void store_partial(T* to, const Vector<T>& value, int64_t count) {
  if (count >= kLanes<T>) {
    store<T>(to, value);
  } else {
    for (int64_t j = 0; j < count; ++j) to[j] = value[j];
  }
}

// Loads W columns of a block as W vectors over its rows; lanes beyond the last row repeat it.
template <typename T>
SEQMEM_INLINE void load_lanes(const T* from, int64_t stride, int rows, int64_t columns, Vector<T> (&tile)[kLanes<T>]) {
  for (int j = 0; j < kLanes<T>; ++j) tile[j] = load_partial<T>(from + (j < rows ? j : rows - 1) * stride, columns);
  transpose<T>(tile);
}

// Converts (rows, count) to (count, W).
template <typename T>
static void rows_to_lanes(const T* from, int64_t stride, int rows, int64_t count, T* to) {
  constexpr int width = kLanes<T>;
  for (int64_t column = 0; column < count; column += width) {
    Vector<T> tile[width];
    load_lanes<T>(from + column, stride, rows, count - column, tile);
    for (int c = 0; c < width && column + c < count; ++c) store<T>(to + (column + c) * width, tile[c]);
  }
}

// Converts (count, W) to (rows, count).
template <typename T>
static void lanes_to_rows(const T* from, int rows, int64_t count, T* to, int64_t stride) {
  constexpr int width = kLanes<T>;
  for (int64_t column = 0; column < count; column += width) {
    Vector<T> tile[width];
    for (int c = 0; c < width; ++c) tile[c] = column + c < count ? load<T>(from + (column + c) * width) : Vector<T>{};
    transpose<T>(tile);
    for (int r = 0; r < rows; ++r) store_partial<T>(to + r * stride + column, tile[r], count - column);
  }
}

}  // namespace seqmem::SEQMEM_ISA
