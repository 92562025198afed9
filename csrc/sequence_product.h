// Products of a few rows with packed weights: z(r, :) = start(r, :) + sum_k a(k, r) w(k, :), for up to kMaxRows rows and 2W
// columns at a time, all of them in registers.
//
// Rows are split into blocks of nearly equal size. A block holds its numbers in one of two orders, so that neither what a
// product leaves nor what a memory's recurrence leaves has to be transposed before it is read by the next product:
//   by rows   W numbers of one row are side by side: number k of row r is at (k / W * rows + r) * W + k % W
//   by lanes  the rows are side by side, a vector of them for each k: number k of row r is at k * W + r
#pragma once

#include <cstdint>

#include "sequence.h"
#include "sequence_rows.h"
#include "vector.h"

namespace seqmem::SEQMEM_ISA {

template <typename T>
constexpr int kPanel = 2 * kLanes<T>;

// 2 R sums, 2 weights and one number of a must fit into the 32 registers of AVX-512, or 16 of others.
constexpr int kTileRows = SEQMEM_VECTOR_BYTES == 64 ? 14 : 6;
template <typename T>
constexpr int kMaxRows = kLanes<T> < kTileRows ? kLanes<T> : kTileRows;

// Steps of k that a panel of weights makes while it stays in the first-level cache.
constexpr int64_t kDepthBytes = 32768;

enum class Order { by_rows, by_lanes };

struct Blocks {
  int64_t count, small, extra;  // `extra` of the blocks have one row more than `small`
  int64_t apart;                // lines of sums from one block to the next, 0 where there are as many as rows

  Blocks(int64_t rows, int most, int lines = 0)
      : count((rows + most - 1) / most), small(count ? rows / count : 0), extra(count ? rows % count : 0), apart(lines) {}
  int rows(int64_t block) const { return int(small + (block < extra)); }
  int64_t start(int64_t block) const { return block * small + (block < extra ? block : extra); }
  // Where the sums of a block's rows start, and how many lines of them there are in all.
  int64_t line(int64_t block) const { return apart == 0 ? start(block) : block * apart; }
  int64_t lines() const { return line(count); }
};

template <typename T, int rows, Order order>
static void multiply_rows(const T* a, const T* w, int64_t depth, const T* start, int64_t start_stride, T* z) {
  constexpr int width = kLanes<T>;
  constexpr int down = order == Order::by_rows ? width : 1, along = order == Order::by_rows ? 1 : width;
  Vector<T> sum[rows][2];
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r) {
    sum[r][0] = load<T>(start + r * start_stride);
    sum[r][1] = load<T>(start + r * start_stride + width);
  }
  for (; depth > 0; depth -= width) {
    const int64_t steps = depth < width ? depth : width;
    const T* now = a;
#pragma GCC unroll 2
    for (int64_t k = 0; k < steps; ++k, now += along, w += kPanel<T>) {
      const Vector<T> left = load<T>(w), right = load<T>(w + width);
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) {
        sum[r][0] += now[r * down] * left;
        sum[r][1] += now[r * down] * right;
      }
    }
    a += order == Order::by_rows ? rows * width : width * width;
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r) {
    store<T>(z + r * kPanel<T>, sum[r][0]);
    store<T>(z + r * kPanel<T> + width, sum[r][1]);
  }
}

template <typename T, int rows = 1>
static void multiply_block(
    int count, Order order, const T* a, const T* w, int64_t depth, const T* start, int64_t start_stride, T* z) {
  if constexpr (rows < kMaxRows<T>) {
    if (count != rows) return multiply_block<T, rows + 1>(count, order, a, w, depth, start, start_stride, z);
  }
  (order == Order::by_rows ? multiply_rows<T, rows, Order::by_rows> : multiply_rows<T, rows, Order::by_lanes>)(
      a, w, depth, start, start_stride, z);
}

// Weights (depth, columns) in rows of 2W, from rows of `depth` numbers that belong to a column each.
template <typename T>
static T* pack_transposed(const T* rows, int64_t depth, int64_t columns, T* to) {
  constexpr int width = kLanes<T>;
  for (int64_t begin = 0; begin < kPanel<T>; begin += width) {
    for (int64_t k = 0; k < depth; k += width) {
      Vector<T> tile[width];
      for (int j = 0; j < width; ++j) {
        tile[j] = begin + j < columns ? load_some<T>(rows + (begin + j) * depth + k, depth - k) : Vector<T>{};
      }
      transpose<T>(tile);
      for (int j = 0; j < width && k + j < depth; ++j) store<T>(to + (k + j) * kPanel<T> + begin, tile[j]);
    }
  }
  return to + depth * kPanel<T>;
}

// The numbers of all blocks of a group: `depth` for each row.
template <typename T>
struct Operand {
  T* data;
  Order order;
  int64_t depth;

  T* block(const Blocks& blocks, int64_t b, int64_t k) const {
    constexpr int width = kLanes<T>;
    return order == Order::by_rows ? data + blocks.start(b) * round_up(depth, width) + k * blocks.rows(b)
                                   : data + b * depth * width + k * width;
  }
};

// z (lines, 2W) = start, or itself where it `adds`, + the sum over operands of its numbers times the next `depth` rows of w.
template <typename T>
static void multiply(
    const Blocks& blocks, const Operand<T>* operands, int count, const T* w, const T* start, T* z, bool adds = false) {
  constexpr int64_t most = kDepthBytes / (kPanel<T> * int64_t(sizeof(T)));
  int64_t stride = adds ? kPanel<T> : 0;
  for (int o = 0; o < count; ++o) {
    for (int64_t k = 0; k < operands[o].depth; k += most) {
      const int64_t depth = operands[o].depth - k < most ? operands[o].depth - k : most;
      for (int64_t b = 0; b < blocks.count; ++b) {
        T* const to = z + blocks.line(b) * kPanel<T>;
        multiply_block<T>(
            blocks.rows(b), operands[o].order, operands[o].block(blocks, b, k), w, depth, stride == 0 ? start : to, stride, to);
      }
      w += depth * kPanel<T>;
      stride = kPanel<T>;
    }
  }
  if (stride == 0) {
    for (int64_t r = 0; r < blocks.lines(); ++r) std::memcpy(z + r * kPanel<T>, start, kPanel<T> * sizeof(T));
  }
}

}  // namespace seqmem::SEQMEM_ISA
