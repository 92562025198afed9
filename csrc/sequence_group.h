// What the loops of both directions share: sizes of a group of rows, its split into blocks, and which rows are within their lengths.
#pragma once

#include <cstdint>
#include <cstring>

#include "sequence_memory.h"
#include "sequence_product.h"
#include "sequence_rows.h"
#include "sequence_tiles.h"

namespace seqmem::SEQMEM_ISA {

template <typename T, typename Rule, bool half>
struct Group {
  static constexpr int width = kLanes<T>;
  using Mask = typename VectorOf<T>::index;

  const Sequence<T>& s;
  const int64_t first, rows;
  const Blocks blocks;
  const int64_t padded;   // hidden units in whole vectors
  const int64_t stored;   // numbers kept of each of a row's gates
  const int64_t memory;   // M N
  Mask* const valid;      // (blocks,)
  T* const written;       // (blocks, M, W)
  Memory<T> update;

  Group(const Sequence<T>& sequence, int64_t first_row, int64_t count, Arena<T>& arena)
      : s(sequence), first(first_row), rows(count), blocks(count, kMaxRows<T>, half ? kTileLines : 0),
        padded(round_up(sequence.hidden, width)),
        stored(round_up(sequence.hidden, kMaxLanes)),
        memory(Rule::kHasMemory ? sequence.memories * sequence.order : 0),
        valid(reinterpret_cast<Mask*>(arena.take(blocks.count * width))),
        written(arena.take(Rule::kHasMemory ? blocks.count * sequence.memories * width : 0)),
        update(sequence, blocks, first_row, arena.take(Rule::kHasMemory ? Memory<T>::workspace(sequence, blocks) : 0)) {}

  bool is_valid(int64_t row, int64_t t) const { return s.lengths == nullptr || t < s.lengths[first + row]; }

  void find_valid(int64_t t) {
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int j = 0; j < width; ++j) valid[b][j] = j < blocks.rows(b) && is_valid(blocks.start(b) + j, t) ? -1 : 0;
    }
  }

  // Steps after which no row goes on.
  int64_t longest() const {
    if (s.lengths == nullptr) return s.steps;
    int64_t most = 0;
    for (int64_t r = 0; r < rows; ++r) most = s.lengths[first + r] > most ? s.lengths[first + r] : most;
    return most < s.steps ? most : s.steps;
  }

  const T* input(int64_t row, int64_t t) const { return s.inputs + (first + row) * s.input_row + t * s.input_step; }

  // (rows, count) of the batch from or to (blocks, count, W).
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

  // (rows, units) of the batch from or to numbers by rows.
  void take_rows(const T* from, T* by_rows) const {
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int r = 0; r < blocks.rows(b); ++r) {
        const T* const row = from + (first + blocks.start(b) + r) * s.hidden;
        for (int64_t u = 0; u < padded; u += width) store<T>(by_rows + at(b, r, u), load_some<T>(row + u, s.hidden - u));
      }
    }
  }
  void give_rows(const T* by_rows, T* to) const {
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int r = 0; r < blocks.rows(b); ++r) {
        T* const row = to + (first + blocks.start(b) + r) * s.hidden;
        for (int64_t u = 0; u < padded; u += width) store_some<T>(row + u, load<T>(by_rows + at(b, r, u)), s.hidden - u);
      }
    }
  }

  // Numbers of each row in bfloat16 as the tiles read them, (blocks, groups of 32, 16 rows, 32); rows that are not there are zero.
  int64_t narrow_size(int64_t depth) const { return blocks.count * tile_groups(depth) * kTileLines * kTileDepth; }
  T* take_narrow(Arena<T>& arena, int64_t depth) const { return arena.take(narrow_size(depth) / 2); }
  void clear(T* narrow, int64_t depth) const { std::memset(narrow, 0, narrow_size(depth) * 2); }

#if SEQMEM_VECTOR_BYTES == 64
  using Unit = Tiles;

  Half* narrow_at(T* narrow, int64_t depth, int64_t b, int r, int64_t k) const {
    return reinterpret_cast<Half*>(narrow) +
        ((b * tile_groups(depth) + k / kTileDepth) * kTileLines + r) * kTileDepth + k % kTileDepth;
  }

  void narrow_lanes(const T* lanes, int64_t depth, T* narrow) const {
    for (int64_t b = 0; b < blocks.count; ++b) {
      const T* const from = lanes + b * depth * width;
      for (int64_t k = 0; k < depth; k += width) {
        Vector<T> tile[width];
        for (int c = 0; c < width; ++c) tile[c] = k + c < depth ? load<T>(from + (k + c) * width) : Vector<T>{};
        transpose<T>(tile);
        for (int r = 0; r < blocks.rows(b); ++r) store_half(narrow_at(narrow, depth, b, r, k), tile[r]);
      }
    }
  }

  void narrow_rows(const T* by_rows, int64_t depth, T* narrow) const {
    const int64_t whole = round_up(depth, width);
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int64_t k = 0; k < depth; k += width) {
        for (int r = 0; r < blocks.rows(b); ++r) {
          store_half(
              narrow_at(narrow, depth, b, r, k), load<T>(by_rows + blocks.start(b) * whole + k * blocks.rows(b) + r * width));
        }
      }
    }
  }

  // Products with `groups` groups of 32 k from group `begin` of `all` on.
  template <bool fresh>
  void multiply_narrow(
      const Tiles& unit, const T* narrow, int64_t all, int64_t begin, int64_t groups, const T* w, T* sums) const {
    constexpr int64_t group = kTileLines * kTileDepth;
    const Half* const from = reinterpret_cast<const Half*>(narrow) + begin * group;
    unit.multiply<fresh>(
        blocks.count, from, all * group, kTileDepth, group, reinterpret_cast<const Half*>(w), groups, sums);
  }
#else
  struct Unit {
    explicit Unit(bool) {}
  };
#endif

  // Where W hidden units of row r of a block start.
  int64_t at(int64_t b, int r, int64_t unit) const { return blocks.start(b) * padded + unit * blocks.rows(b) + r * width; }
};

}  // namespace seqmem::SEQMEM_ISA
