// Packing of the weights, and the base of the forward and the backward loop of an sLSTM: some rows of one head.
#pragma once

#include <cstdint>
#include <cstring>

#include "sequence_product.h"
#include "sequence_rows.h"
#include "slstm_cell.h"
#include "vector.h"

namespace seqmem::SEQMEM_ISA {

template <typename T>
static void slstm_pack(const Slstm<T>& s, bool backward, int64_t head) {
  constexpr int width = kLanes<T>;
  const T* const weight = s.weight + head * kSlstmGates * s.size * s.size;
  T* to = s.packed + head * kSlstmGates * s.size * round_up(s.size, kPanel<T>);
  for (int64_t unit = 0; unit < s.size; unit += kPanel<T>) {
    const int64_t count = s.size - unit < kPanel<T> ? s.size - unit : kPanel<T>;
    for (int gate = 0; !backward && gate < kSlstmGates; ++gate) {
      to = pack_transposed<T>(weight + (gate * s.size + unit) * s.size, s.size, count, to);
    }
    for (int64_t row = 0; backward && row < kSlstmGates * s.size; ++row, to += kPanel<T>) {
      const T* const from = weight + row * s.size + unit;
      store<T>(to, load_partial<T>(from, count));
      store<T>(to + width, count > width ? load_partial<T>(from + width, count - width) : Vector<T>{});
    }
  }
}

template <typename T>
struct SlstmGroup {
  static constexpr int width = kLanes<T>;

  const Slstm<T>& s;
  const int64_t head, first, rows;
  const Blocks blocks;
  const int64_t padded;  // units of the head, rounded up to whole vectors
  T* const zeros;        // (2W,)

  SlstmGroup(const Slstm<T>& sequence, int64_t head_index, int64_t first_row, int64_t count, Arena<T>& arena)
      : s(sequence), head(head_index), first(first_row), rows(count), blocks(count, kMaxRows<T>),
        padded(round_up(sequence.size, width)), zeros(arena.allocate(kPanel<T>)) {}

  bool is_valid(int64_t row, int64_t t) const { return s.lengths == nullptr || t < s.lengths[first + row]; }
  int64_t length(int64_t row) const { return s.lengths == nullptr ? s.steps : s.lengths[first + row]; }
  int64_t longest() const {
    int64_t steps = 0;
    for (int64_t r = 0; r < rows; ++r) steps = length(r) > steps ? length(r) : steps;
    return steps;
  }

  // Number 0 of the head in (B, H), (B, T, H) and (B, T, 4H), and of what is saved.
  int64_t of_state(int64_t row) const { return (first + row) * s.units() + head * s.size; }
  int64_t of_step(int64_t row, int64_t t) const { return ((first + row) * s.steps + t) * s.units() + head * s.size; }
  int64_t of_gates(int64_t row, int64_t t) const {
    return ((first + row) * s.steps + t) * kSlstmGates * s.units() + head * s.size;
  }
  const T* packed_panel(int64_t unit) const {
    return s.packed + kSlstmGates * s.size * (head * round_up(s.size, kPanel<T>) + unit);
  }
  T* saved(int64_t row, int64_t t) const {
    return s.saved + ((t * s.heads + head) * s.batch + first + row) * kSlstmSaved * s.saved_stride();
  }

  T* checkpoint(int64_t row, int64_t t) const {
    return s.checkpoints + ((t / kSlstmInterval * s.heads + head) * s.batch + first + row) * 2 * s.saved_stride();
  }

  // Offset of W units of row r of a block, in the layout by rows.
  int64_t offset(int64_t b, int r, int64_t unit) const { return blocks.start(b) * padded + unit * blocks.rows(b) + r * width; }

  // Converts the head's part of (B, H) to and from the layout by rows.
  void load_rows(const T* from, T* by_rows) const {
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int r = 0; r < blocks.rows(b); ++r) {
        const T* const row = from + of_state(blocks.start(b) + r);
        for (int64_t u = 0; u < padded; u += width) store<T>(by_rows + offset(b, r, u), load_partial<T>(row + u, s.size - u));
      }
    }
  }
  void store_rows(const T* by_rows, T* to) const {
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int r = 0; r < blocks.rows(b); ++r) {
        T* const row = to + of_state(blocks.start(b) + r);
        for (int64_t u = 0; u < padded; u += width) store_partial<T>(row + u, load<T>(by_rows + offset(b, r, u)), s.size - u);
      }
    }
  }
};

// Stores W units, of which `remaining` exist, past the caches if `streamed`.
template <typename T>
SEQMEM_INLINE void store_units(T* to, const Vector<T>& value, int64_t remaining, bool streamed) {
  if (streamed) {
    stream<T>(to, value);
  } else {
    store_partial<T>(to, value, remaining);
  }
}

}  // namespace seqmem::SEQMEM_ISA
