// Matrix products of a few rows with packed weights: z(r, :) = start(r, :) + sum_k a(k, r) w(k, :), for up to kMaxRows rows and
// one panel of 2W columns at a time, accumulated in registers.
//
// Rows are split into blocks of nearly equal size. A block has one of three layouts, so that the output of a product or of the
// memory's recurrence is an operand of the next product without a transposition:
//   by rows    W numbers of one row are contiguous: number k of row r is at (k / W * rows + r) * W + k % W
//   by lanes   the rows are contiguous, one vector per k: number k of row r is at k * W + r
//   by panels  2W numbers of one row are contiguous: number k of row r is at k / 2W * stride + r * 2W + k % 2W
#pragma once

#include <cstdint>

#include "sequence.h"
#include "sequence_rows.h"
#include "vector.h"

namespace seqmem::SEQMEM_ISA {

template <typename T>
constexpr int kPanel = 2 * kLanes<T>;

// 2 R sums, 2 weights and one number of a must fit into 32 registers with AVX-512, 16 with other instruction sets.
constexpr int kRegisterRows = SEQMEM_VECTOR_BYTES == 64 ? 14 : 6;
template <typename T>
constexpr int kMaxRows = kLanes<T> < kRegisterRows ? kLanes<T> : kRegisterRows;

// Size of a panel of weights that stays in the L1 cache.
constexpr int64_t kPanelBytes = 32768;

enum class Layout { by_rows, by_lanes, by_panels };

// Most operands of one product: the four gates of a cell, or its three sources.
constexpr int kMaxOperands = 4;

struct Blocks {
  int64_t count, small, extra;  // the first `extra` blocks have small + 1 rows, the others `small`
  int64_t sum_stride;           // rows of sums from one block to the next; 0 if it is the number of the block's rows

  Blocks(int64_t rows, int max_rows, int rows_of_sums = 0)
      : count((rows + max_rows - 1) / max_rows), small(count ? rows / count : 0), extra(count ? rows % count : 0),
        sum_stride(rows_of_sums) {}
  int rows(int64_t block) const { return int(small + (block < extra)); }
  int64_t start(int64_t block) const { return block * small + (block < extra ? block : extra); }
  // First row of sums of a block, and the number of rows of sums of all blocks.
  int64_t sum_row(int64_t block) const { return sum_stride == 0 ? start(block) : block * sum_stride; }
  int64_t sum_rows() const { return sum_row(count); }
};

// `depth` numbers of each row of a block: the left factor of a product. `stride` is the distance between panels, or, by lanes,
// between consecutive k.
template <typename T>
struct Piece {
  const T* data;
  Layout layout;
  int64_t depth;
  int64_t stride = kLanes<T>;
};

template <typename T, int rows, int vectors, Layout layout>
SEQMEM_INLINE void add_products(const Piece<T>& piece, const T*& w, Vector<T> (&sum)[rows][vectors]) {
  constexpr int width = kLanes<T>;
  constexpr int row_stride = layout == Layout::by_rows ? width : layout == Layout::by_panels ? kPanel<T> : 1;
  const int64_t k_stride = layout == Layout::by_lanes ? piece.stride : 1;
  const T* a = piece.data;
  bool first_half = true;  // of a panel
  for (int64_t depth = piece.depth; depth > 0; depth -= width, first_half = !first_half) {
    const int64_t steps = depth < width ? depth : width;
    const T* a_k = a;
#pragma GCC unroll 2
    for (int64_t k = 0; k < steps; ++k, a_k += k_stride, w += kPanel<T>) {
      Vector<T> weights[vectors];
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) weights[v] = load<T>(w + v * width);
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v) sum[r][v] += a_k[r * row_stride] * weights[v];
      }
    }
    a += layout == Layout::by_rows    ? rows * width
         : layout == Layout::by_lanes ? width * k_stride
         : first_half                 ? width
                                      : piece.stride - width;
  }
}

// Computes the first `vectors` of the two vectors of a panel and leaves the other unchanged.
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
    if (pieces[p].layout == Layout::by_rows) {
      add_products<T, rows, vectors, Layout::by_rows>(pieces[p], w, sum);
    } else if (pieces[p].layout == Layout::by_lanes) {
      add_products<T, rows, vectors, Layout::by_lanes>(pieces[p], w, sum);
    } else {
      add_products<T, rows, vectors, Layout::by_panels>(pieces[p], w, sum);
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
    int row_count, const Piece<T>* pieces, int count, const T* w, const T* start, int64_t start_stride, T* z) {
  if constexpr (rows < kMaxRows<T>) {
    if (row_count != rows) return multiply_block<T, vectors, rows + 1>(row_count, pieces, count, w, start, start_stride, z);
  }
  multiply_rows<T, rows, vectors>(pieces, count, w, start, start_stride, z);
}

// z (row_count, 2W) = start + the sum over pieces of each piece times the next `depth` rows of w. If `columns` fit into one
// vector, the second vector of the panel is left unchanged.
template <typename T>
static void multiply_block(
    int row_count, int64_t columns, const Piece<T>* pieces, int count, const T* w, const T* start, int64_t start_stride, T* z) {
  (columns > kLanes<T> ? multiply_block<T, 2> : multiply_block<T, 1>)(row_count, pieces, count, w, start, start_stride, z);
}

// Packs weights (columns, depth) transposed, as (depth, 2W) with zeros beyond `columns`; returns the end of the packed weights.
template <typename T>
static T* pack_transposed(const T* rows, int64_t depth, int64_t columns, T* to) {
  constexpr int width = kLanes<T>;
  for (int64_t begin = 0; begin < kPanel<T>; begin += width) {
    for (int64_t k = 0; k < depth; k += width) {
      Vector<T> tile[width];
      for (int j = 0; j < width; ++j) {
        tile[j] = begin + j < columns ? load_partial<T>(rows + (begin + j) * depth + k, depth - k) : Vector<T>{};
      }
      transpose<T>(tile);
      for (int j = 0; j < width && k + j < depth; ++j) store<T>(to + (k + j) * kPanel<T> + begin, tile[j]);
    }
  }
  return to + depth * kPanel<T>;
}

// `depth` numbers of each row of all blocks of a group.
template <typename T>
struct Operand {
  T* data;
  Layout layout;
  int64_t depth;
  int64_t stride = kLanes<T>;  // as of a piece

  // Numbers [k, k + count) of a block; k starts a vector, or, by panels, a panel.
  Piece<T> piece(const Blocks& blocks, int64_t b, int64_t k, int64_t count) const {
    constexpr int width = kLanes<T>;
    const T* const from = layout == Layout::by_rows    ? data + blocks.start(b) * round_up(depth, width) + k * blocks.rows(b)
                          : layout == Layout::by_lanes ? data + b * depth * width + k * width
                                                       : data + k / kPanel<T> * stride + blocks.start(b) * kPanel<T>;
    return {from, layout, count, stride};
  }
};

// z (rows of sums, 2W) = start, or z if `accumulate`, + the sum over operands of each operand times the next `depth` rows of w,
// for the first `columns` of the panel. Runs over chunks of w that stay in the L1 cache.
template <typename T>
static void multiply(
    const Blocks& blocks, const Operand<T>* operands, int count, int64_t columns, const T* w, const T* start, T* z,
    bool accumulate = false) {
  constexpr int64_t max_depth = kPanelBytes / (kPanel<T> * int64_t(sizeof(T)));
  int64_t stride = accumulate ? kPanel<T> : 0, k = 0;
  for (int o = 0; o < count;) {
    const Operand<T>* sources[kMaxOperands];
    int64_t begin[kMaxOperands], length[kMaxOperands], depth = 0;
    int piece_count = 0;
    while (o < count && depth < max_depth) {
      const int64_t remaining = operands[o].depth - k, room = max_depth - depth;
      const int64_t next = remaining <= room ? remaining : room / kPanel<T> * kPanel<T>;
      if (next < remaining && next == 0) break;
      sources[piece_count] = &operands[o];
      length[piece_count] = next;
      begin[piece_count++] = k;
      depth += next;
      k = next < remaining ? k + next : 0;
      o += next == remaining;
    }
    for (int64_t b = 0; b < blocks.count; ++b) {
      Piece<T> pieces[kMaxOperands];
      for (int p = 0; p < piece_count; ++p) pieces[p] = sources[p]->piece(blocks, b, begin[p], length[p]);
      T* const to = z + blocks.sum_row(b) * kPanel<T>;
      multiply_block<T>(blocks.rows(b), columns, pieces, piece_count, w, stride == 0 ? start : to, stride, to);
    }
    w += depth * kPanel<T>;
    stride = kPanel<T>;
  }
  if (stride == 0) {
    for (int64_t r = 0; r < blocks.sum_rows(); ++r) std::memcpy(z + r * kPanel<T>, start, kPanel<T> * sizeof(T));
  }
}

}  // namespace seqmem::SEQMEM_ISA
