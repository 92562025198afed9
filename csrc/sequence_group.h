// Base of the forward and the backward time loop: a group of rows, its blocks, and its valid rows.
#pragma once

#include <cstdint>
#include <cstring>

#include "sequence_memory.h"
#include "sequence_product.h"
#include "sequence_rows.h"
#include "sequence_bfloat16.h"

namespace seqmem::SEQMEM_ISA {

template <typename T, typename Pointwise, bool bf16>
struct Group {
  static constexpr int width = kLanes<T>;
  using Mask = typename VectorOf<T>::index;

  const Sequence<T>& s;
  const int64_t first, rows;
  const Blocks blocks;
  const int64_t padded;        // H rounded up to whole vectors
  const int64_t saved_stride;  // numbers saved per gate and row
  const int64_t memory;        // M N
  Mask* const valid;           // (blocks,)
  T* const memory_input;       // (blocks, M, W)
  Memory<T> memory_update;

  Group(const Sequence<T>& sequence, int64_t first_row, int64_t count, Arena<T>& arena)
      : s(sequence), first(first_row), rows(count), blocks(count, kMaxRows<T>, bf16 ? kTileRows : 0),
        padded(round_up(sequence.hidden, width)), saved_stride(round_up(sequence.hidden, kMaxLanes)),
        memory(Pointwise::kHasMemory ? sequence.memories * sequence.order : 0),
        valid(reinterpret_cast<Mask*>(arena.allocate(blocks.count * width))),
        memory_input(arena.allocate(Pointwise::kHasMemory ? blocks.count * sequence.memories * width : 0)),
        memory_update(
            sequence, blocks, first_row, arena.allocate(Pointwise::kHasMemory ? Memory<T>::workspace(sequence, blocks) : 0)) {}

  bool is_valid(int64_t row, int64_t t) const { return s.lengths == nullptr || t < s.lengths[first + row]; }

  void find_valid_rows(int64_t t) {
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int j = 0; j < width; ++j) valid[b][j] = j < blocks.rows(b) && is_valid(blocks.start(b) + j, t) ? -1 : 0;
    }
  }

  // Steps of the longest row.
  int64_t longest() const {
    if (s.lengths == nullptr) return s.steps;
    int64_t length = 0;
    for (int64_t r = 0; r < rows; ++r) length = s.lengths[first + r] > length ? s.lengths[first + r] : length;
    return length;
  }

  const T* input(int64_t row, int64_t t) const { return s.inputs + (first + row) * s.input_row + t * s.input_step; }

  // Converts (rows, count) of the batch to and from (blocks, count, W).
  void gather(const T* from, int64_t stride, int64_t count, T* lanes) const {
    for (int64_t b = 0; b < blocks.count; ++b) {
      rows_to_lanes<T>(from + (first + blocks.start(b)) * stride, stride, blocks.rows(b), count, lanes + b * count * width);
    }
  }
  void scatter(const T* lanes, int64_t count, T* to, int64_t stride) const {
    for (int64_t b = 0; b < blocks.count; ++b) {
      lanes_to_rows<T>(lanes + b * count * width, blocks.rows(b), count, to + (first + blocks.start(b)) * stride, stride);
    }
  }

  // Converts (rows, H) of the batch to and from the layout by rows.
  void load_rows(const T* from, T* by_rows) const {
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int r = 0; r < blocks.rows(b); ++r) {
        const T* const row = from + (first + blocks.start(b) + r) * s.hidden;
        for (int64_t u = 0; u < padded; u += width) store<T>(by_rows + offset(b, r, u), load_partial<T>(row + u, s.hidden - u));
      }
    }
  }
  void store_rows(const T* by_rows, T* to) const {
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int r = 0; r < blocks.rows(b); ++r) {
        T* const row = to + (first + blocks.start(b) + r) * s.hidden;
        for (int64_t u = 0; u < padded; u += width) store_partial<T>(row + u, load<T>(by_rows + offset(b, r, u)), s.hidden - u);
      }
    }
  }

  // bfloat16 operands in the layout of tiles, (blocks, groups of 32, 16 rows, 32); missing rows are zero.
  int64_t bf16_size(int64_t depth) const { return blocks.count * tile_groups(depth) * kTileRows * kTileDepth; }
  T* allocate_bf16(Arena<T>& arena, int64_t depth) const { return arena.allocate(bf16_size(depth) / 2); }
  void clear_bf16(T* operand, int64_t depth) const { std::memset(operand, 0, bf16_size(depth) * 2); }

#if SEQMEM_VECTOR_BYTES == 64
  using Unit = MatrixUnit;

  Bfloat16* bf16_at(T* operand, int64_t depth, int64_t b, int r, int64_t k) const {
    return reinterpret_cast<Bfloat16*>(operand) + ((b * tile_groups(depth) + k / kTileDepth) * kTileRows + r) * kTileDepth +
           k % kTileDepth;
  }

  void lanes_to_bf16(const T* lanes, int64_t depth, T* operand) const {
    for (int64_t b = 0; b < blocks.count; ++b) {
      const T* const from = lanes + b * depth * width;
      for (int64_t k = 0; k < depth; k += width) {
        Vector<T> tile[width];
        for (int c = 0; c < width; ++c) tile[c] = k + c < depth ? load<T>(from + (k + c) * width) : Vector<T>{};
        transpose<T>(tile);
        for (int r = 0; r < blocks.rows(b); ++r) store_bfloat16(bf16_at(operand, depth, b, r, k), tile[r]);
      }
    }
  }

  void rows_to_bf16(const T* by_rows, int64_t depth, T* operand) const {
    const int64_t padded_depth = round_up(depth, width);
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int64_t k = 0; k < depth; k += width) {
        for (int r = 0; r < blocks.rows(b); ++r) {
          store_bfloat16(
              bf16_at(operand, depth, b, r, k),
              load<T>(by_rows + blocks.start(b) * padded_depth + k * blocks.rows(b) + r * width));
        }
      }
    }
  }

  // Products with groups [begin, begin + groups) of the `total` groups of 32 k.
  template <bool overwrite>
  void multiply_bf16(
      const MatrixUnit& unit, const T* operand, int64_t total, int64_t begin, int64_t groups, const T* w, T* sums) const {
    constexpr int64_t group = kTileRows * kTileDepth;
    const Bfloat16* const from = reinterpret_cast<const Bfloat16*>(operand) + begin * group;
    unit.multiply<overwrite>(
        blocks.count, blocks.rows(0), from, total * group, kTileDepth, group, reinterpret_cast<const Bfloat16*>(w), groups,
        sums);
  }
#else
  struct Unit {
    explicit Unit(bool) {}
  };
#endif

  // Offset of W hidden units of row r of a block.
  int64_t offset(int64_t b, int r, int64_t unit) const { return blocks.start(b) * padded + unit * blocks.rows(b) + r * width; }
};

}  // namespace seqmem::SEQMEM_ISA
