// Products of a few rows with packed weights: z(r, :) = start(r, :) + sum_k a(k, r) w(k, :), for up to kMaxRows rows and 2W
// columns at a time, all of them in registers.
//
// Rows are split into blocks of nearly equal size. A block holds its numbers in one of three orders, so that neither what a
// product leaves nor what a memory's recurrence leaves has to be transposed before it is read by the next product:
//   by rows    W numbers of one row are side by side: number k of row r is at (k / W * rows + r) * W + k % W
//   by lanes   the rows are side by side, a vector of them for each k: number k of row r is at k * W + r
//   by panels  2W numbers of one row are side by side, panels lie apart: number k of row r is at k / 2W * apart + r * 2W + k % 2W
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

enum class Order { by_rows, by_lanes, by_panels };

// That one product sums over: the four gates of a cell, or the three sources of one.
constexpr int kMostOperands = 4;

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

// Numbers of a block that are next to be multiplied; `apart` from one panel to the next, or by lanes, where it may be more than W,
// from those of one k to the next.
template <typename T>
struct Piece {
  const T* numbers;
  Order order;
  int64_t depth;
  int64_t apart = kLanes<T>;
};

template <typename T, int rows, int vectors, Order order>
SEQMEM_INLINE void add_products(const Piece<T>& piece, const T*& w, Vector<T> (&sum)[rows][vectors]) {
  constexpr int width = kLanes<T>;
  constexpr int down = order == Order::by_rows ? width : order == Order::by_panels ? kPanel<T> : 1;
  const int64_t along = order == Order::by_lanes ? piece.apart : 1;
  const T* a = piece.numbers;
  bool begins = true;  // a panel
  for (int64_t depth = piece.depth; depth > 0; depth -= width, begins = !begins) {
    const int64_t steps = depth < width ? depth : width;
    const T* now = a;
#pragma GCC unroll 2
    for (int64_t k = 0; k < steps; ++k, now += along, w += kPanel<T>) {
      Vector<T> weights[vectors];
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) weights[v] = load<T>(w + v * width);
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v) sum[r][v] += now[r * down] * weights[v];
      }
    }
    a += order == Order::by_rows ? rows * width : order == Order::by_lanes ? width * along : begins ? width : piece.apart - width;
  }
}

// The first `vectors` of the two vectors of a panel; the other is left as it is.
template <typename T, int rows, int vectors>
static void multiply_rows(const Piece<T>* pieces, int count, const T* w, const T* start, int64_t start_stride, T* z) {
  constexpr int width = kLanes<T>;
  Vector<T> sum[rows][vectors];
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) sum[r][v] = load<T>(start + r * start_stride + v * width);
  }
  for (int p = 0; p < count; ++p) {
    if (pieces[p].order == Order::by_rows) {
      add_products<T, rows, vectors, Order::by_rows>(pieces[p], w, sum);
    } else if (pieces[p].order == Order::by_lanes) {
      add_products<T, rows, vectors, Order::by_lanes>(pieces[p], w, sum);
    } else {
      add_products<T, rows, vectors, Order::by_panels>(pieces[p], w, sum);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) store<T>(z + r * kPanel<T> + v * width, sum[r][v]);
  }
}

template <typename T, int vectors, int rows = 1>
static void multiply_block(
    int lines, const Piece<T>* pieces, int count, const T* w, const T* start, int64_t start_stride, T* z) {
  if constexpr (rows < kMaxRows<T>) {
    if (lines != rows) return multiply_block<T, vectors, rows + 1>(lines, pieces, count, w, start, start_stride, z);
  }
  multiply_rows<T, rows, vectors>(pieces, count, w, start, start_stride, z);
}

// For `lines` rows: z (lines, 2W) = start + the sum over pieces of their numbers times the next `depth` rows of w. Of a panel whose
// `columns` fit into one vector the other is not touched.
template <typename T>
static void multiply_block(
    int lines, int64_t columns, const Piece<T>* pieces, int count, const T* w, const T* start, int64_t start_stride, T* z) {
  (columns > kLanes<T> ? multiply_block<T, 2> : multiply_block<T, 1>)(lines, pieces, count, w, start, start_stride, z);
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
  int64_t apart = kLanes<T>;  // of a piece of it

  // From number k on, which begins a vector, or by panels a panel.
  Piece<T> piece(const Blocks& blocks, int64_t b, int64_t k, int64_t count) const {
    constexpr int width = kLanes<T>;
    const T* const from = order == Order::by_rows ? data + blocks.start(b) * round_up(depth, width) + k * blocks.rows(b)
        : order == Order::by_lanes                ? data + b * depth * width + k * width
                                                  : data + k / kPanel<T> * apart + blocks.start(b) * kPanel<T>;
    return {from, order, count, apart};
  }
};

// z (lines, 2W) = start, or itself where it `adds`, + the sum over operands of its numbers times the next `depth` rows of w, for
// the first `columns` of the panel. As many of these rows at a time as stay in the first-level cache.
template <typename T>
static void multiply(
    const Blocks& blocks, const Operand<T>* operands, int count, int64_t columns, const T* w, const T* start, T* z,
    bool adds = false) {
  constexpr int64_t most = kDepthBytes / (kPanel<T> * int64_t(sizeof(T)));
  int64_t stride = adds ? kPanel<T> : 0, k = 0;
  for (int o = 0; o < count;) {
    const Operand<T>* sources[kMostOperands];
    int64_t begin[kMostOperands], length[kMostOperands], depth = 0;
    int together = 0;
    while (o < count && depth < most) {
      const int64_t left = operands[o].depth - k, room = most - depth;
      const int64_t next = left <= room ? left : room / kPanel<T> * kPanel<T>;
      if (next < left && next == 0) break;
      sources[together] = &operands[o];
      length[together] = next;
      begin[together++] = k;
      depth += next;
      k = next < left ? k + next : 0;
      o += next == left;
    }
    for (int64_t b = 0; b < blocks.count; ++b) {
      Piece<T> pieces[kMostOperands];
      for (int p = 0; p < together; ++p) pieces[p] = sources[p]->piece(blocks, b, begin[p], length[p]);
      T* const to = z + blocks.line(b) * kPanel<T>;
      multiply_block<T>(blocks.rows(b), columns, pieces, together, w, stride == 0 ? start : to, stride, to);
    }
    w += depth * kPanel<T>;
    stride = kPanel<T>;
  }
  if (stride == 0) {
    for (int64_t r = 0; r < blocks.lines(); ++r) std::memcpy(z + r * kPanel<T>, start, kPanel<T> * sizeof(T));
  }
}

}  // namespace seqmem::SEQMEM_ISA
