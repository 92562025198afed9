// Vectors of a range of numbers of a step, and products of pairs.
#pragma once

#include <cstdint>
#include <cstring>

#include "scan.h"
#include "sequence_rows.h"
#include "vector.h"

namespace seqmem::SEQMEM_ISA {

// Steps whose terms are summed in the type of the numbers, before their sum is added up in float64.
constexpr int64_t kSummedSteps = 64;

// The vectors of a range. The last one ends with the range and may overlap the one before it: both compute the same numbers. A
// range of fewer numbers than a vector has a partial one.
template <typename T, bool is_partial>
struct ScanColumns {
  static constexpr int width = kLanes<T>;
  int64_t count;

  int64_t vectors() const { return (count + width - 1) / width; }

  // Calls function(offset of the numbers, offset in a buffer) for each vector. The addresses must run in the direction of time:
  // prefetching does not recognise steps that go back while the numbers of each go ahead, which takes three times as long.
  template <typename Function>
  inline __attribute__((always_inline)) void each(bool is_ascending, const Function& function) const {
    if constexpr (is_partial) {
      function(int64_t(0), int64_t(0));
    } else {
      const int64_t all = vectors(), next = is_ascending ? width : -width;
      int64_t slot = is_ascending ? 0 : (all - 1) * width;
      for (int64_t vector = 0; vector < all; ++vector, slot += next) {
        function(slot + width <= count ? slot : count - width, slot);
      }
    }
  }

  inline __attribute__((always_inline)) Vector<T> read(const T* from) const {
    if constexpr (is_partial) return load_partial<T>(from, count);
    return load<T>(from);
  }

  inline __attribute__((always_inline)) void write(T* to, const Vector<T>& value, bool streams) const {
    if constexpr (is_partial) {
      store_partial<T>(to, value, count);
    } else if (kCanStream && streams) {
      stream<T>(to, value);
    } else {
      store<T>(to, value);
    }
  }

  // Fills a buffer from numbers of a range, or with zeros.
  void fill(T* buffer, const T* from) const {
    each(true, [&](int64_t k, int64_t slot) { store<T>(buffer + slot, from == nullptr ? Vector<T>{} : read(from + k)); });
  }
  void copy(T* to, const T* buffer) const {
    each(true, [&](int64_t k, int64_t slot) { write(to + k, load<T>(buffer + slot), false); });
  }

  // Adds the sums of a buffer to those of the row, or sets these, and clears the buffer.
  void add_up(double* sums, T* buffer, bool sets) const {
    each(true, [&](int64_t k, int64_t slot) {
      const int64_t lanes = is_partial ? count : width;
      for (int64_t j = 0; j < lanes; ++j) {
        // Numbers of overlapping vectors are those of the last one.
        const bool is_last = slot + width >= count, is_shared = !is_last && k + j >= count - width && count % width != 0;
        if (!is_shared) sums[k + j] = (sets ? 0.0 : sums[k + j]) + double(buffer[slot + j]);
      }
      store<T>(buffer + slot, Vector<T>{});
    });
  }
};

// Zeros in the numbers of a range, of steps [first, end).
template <typename T>
static void clear_steps(T* to, int64_t stride, int64_t first, int64_t end, int64_t count) {
  for (int64_t t = first; t < end; ++t) std::memset(to + t * stride, 0, count * sizeof(T));
}

// Lanes (from + 2 (j / 2)) of the pairs, (a_0, a_0, a_2, a_2, ...) for from = 0, (a_1, a_1, a_3, a_3, ...) for 1.
template <typename T, int from>
SEQMEM_INLINE Vector<T> both(const Vector<T>& a) {
  constexpr int width = kLanes<T>;
#if defined(__clang__)
  Vector<T> shuffled;
  for (int j = 0; j < width; ++j) shuffled[j] = a[j / 2 * 2 + from];
  return shuffled;
#else
  typename VectorOf<T>::index lanes;
  for (int j = 0; j < width; ++j) lanes[j] = j / 2 * 2 + from;
  return __builtin_shuffle(a, lanes);
#endif
}

// (a_1, a_0, a_3, a_2, ...)
template <typename T>
SEQMEM_INLINE Vector<T> swapped(const Vector<T>& a) {
  constexpr int width = kLanes<T>;
#if defined(__clang__)
  Vector<T> shuffled;
  for (int j = 0; j < width; ++j) shuffled[j] = a[j ^ 1];
  return shuffled;
#else
  typename VectorOf<T>::index lanes;
  for (int j = 0; j < width; ++j) lanes[j] = j ^ 1;
  return __builtin_shuffle(a, lanes);
#endif
}

// (-1, 1, -1, 1, ...)
template <typename T>
SEQMEM_INLINE Vector<T> alternating() {
  Vector<T> signs;
  for (int j = 0; j < kLanes<T>; ++j) signs[j] = j % 2 ? T(1) : T(-1);
  return signs;
}

// a x + b
template <typename T, bool pairs>
SEQMEM_INLINE Vector<T> multiply_add(const Vector<T>& a, const Vector<T>& x, const Vector<T>& b) {
  if constexpr (!pairs) return a * x + b;
  return both<T, 0>(a) * x + (both<T, 1>(a) * alternating<T>() * swapped<T>(x) + b);
}

// conj(a) x
template <typename T, bool pairs>
SEQMEM_INLINE Vector<T> multiply_conjugate(const Vector<T>& a, const Vector<T>& x) {
  if constexpr (!pairs) return a * x;
  return both<T, 0>(a) * x - both<T, 1>(a) * alternating<T>() * swapped<T>(x);
}

}  // namespace seqmem::SEQMEM_ISA
