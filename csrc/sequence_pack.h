// Packing of the weights into panels for the products of the time loops.
#pragma once

#include <cstdint>
#include <cstring>

#include "sequence_cells.h"
#include "sequence_product.h"
#include "sequence_rows.h"
#include "sequence_bfloat16.h"

namespace seqmem::SEQMEM_ISA {

template <typename T, typename Pointwise>
static int64_t depth(const Sequence<T>& s, Source source) {
  if (s.weight[source] == nullptr) return 0;
  const int64_t memory = Pointwise::kResetBefore ? s.hidden : s.memories * s.order;
  return source == from_memory ? memory : source == from_hidden ? s.hidden : s.channels;
}

// Whether a source is multiplied in bfloat16 if the others are; an input with few channels is not.
template <typename T>
static bool is_deep(const Sequence<T>& s, int source) {
  return source != from_input || s.channels >= kTileDepth;
}
template <typename T, bool bf16>
static bool uses_bf16(const Sequence<T>& s, int source) {
  return bf16 && is_deep<T>(s, source);
}

// The same for products in float32 of rounded operands.
template <typename T>
static bool rounds_source(const Sequence<T>& s, int source) {
  return s.rounds && s.weight[source] != nullptr && is_deep<T>(s, source);
}

// Rows of 2W numbers of the packed weights of a source: one per k, or one per two k in bfloat16.
template <typename T, typename Pointwise, bool bf16>
static int64_t packed_rows(const Sequence<T>& s, int source) {
  const int64_t numbers = depth<T, Pointwise>(s, Source(source));
  return uses_bf16<T, bf16>(s, source) ? tile_groups(numbers) * kTileDepth / 2 : numbers;
}

// Rows of the first `gates` gates of a packed panel: for each gate its bias, then its weights of each source.
template <typename T, typename Pointwise, bool bf16>
static int64_t panel_rows(const Sequence<T>& s, int gates = Pointwise::kGates) {
  int64_t rows = 0;
  for (int gate = 0; gate < gates; ++gate) {
    ++rows;
    for (int source = 0; source < kSources; ++source) {
      if (Pointwise::uses(gate, Source(source))) rows += packed_rows<T, Pointwise, bf16>(s, source);
    }
  }
  return rows;
}

// Size of a source that needs a gradient, else 0.
template <typename T, typename Pointwise>
static int64_t gradient_depth(const Sequence<T>& s, int source) {
  return source == from_input && s.grad_inputs == nullptr ? 0 : depth<T, Pointwise>(s, Source(source));
}

// Forward: one panel per 2W hidden units. Backward: one per 2W numbers of the memory, the hidden state and the input.
template <typename T, typename Pointwise>
static int64_t panels(const Sequence<T>& s, bool backward) {
  constexpr int64_t columns = kPanel<T>;
  if (!backward) return (s.hidden + columns - 1) / columns;
  int64_t count = 0;
  for (int source = 0; source < kSources; ++source) count += (gradient_depth<T, Pointwise>(s, source) + columns - 1) / columns;
  return count;
}

// Numbers of the packed panels before `panel`.
template <typename T, typename Pointwise, bool bf16>
static int64_t panel_offset(const Sequence<T>& s, bool backward, int64_t panel) {
  constexpr int64_t columns = kPanel<T>;
  if (!backward) return panel * columns * panel_rows<T, Pointwise, bf16>(s);
  const int64_t rows = bf16 ? tile_groups(s.hidden) * kTileDepth / 2 : s.hidden;
  int64_t numbers = 0;
  for (int source = 0; source < kSources; ++source) {
    const int64_t all = (gradient_depth<T, Pointwise>(s, source) + columns - 1) / columns, count = panel < all ? panel : all;
    numbers += count * columns * Pointwise::products(Source(source)) * rows;
    panel -= count;
  }
  return numbers;
}

template <typename T, typename Pointwise, bool bf16>
static int64_t packed_size(const Sequence<T>& s, bool backward) {
  return panel_offset<T, Pointwise, bf16>(s, backward, panels<T, Pointwise>(s, backward));
}

// Packs weights (depth, columns) into bfloat16 tiles. Number (k, column) is at weights[k * k_stride + column * column_stride].
template <typename T>
static T* pack_tiles(const T* weights, int64_t k_stride, int64_t column_stride, int64_t depth, int64_t columns, T* to) {
  Bfloat16* const tiles = reinterpret_cast<Bfloat16*>(to);
  for (int64_t k = 0; k < round_up(depth, kTileDepth); ++k) {
    Bfloat16* const group = tiles + k / kTileDepth * kGroup + k % kTileDepth / 2 * kTileColumns + k % 2;
    for (int64_t column = 0; column < kTileColumns; ++column) {
      const bool inside = k < depth && column < columns;
      group[column / 16 * (kGroup / 2) + column % 16 * 2] =
          inside ? to_bfloat16(float(weights[k * k_stride + column * column_stride])) : Bfloat16(0);
    }
  }
  return to + tile_groups(depth) * kGroup / 2;
}

template <typename T, typename Pointwise, bool bf16>
static void pack_forward(const Sequence<T>& s, int64_t panel, T* to) {
  const int64_t unit = panel * kPanel<T>, count = s.hidden - unit < kPanel<T> ? s.hidden - unit : kPanel<T>;
  for (int gate = 0; gate < Pointwise::kGates; ++gate) {
    for (int64_t u = 0; u < kPanel<T>; ++u) to[u] = s.bias != nullptr && u < count ? s.bias[gate * s.hidden + unit + u] : T(0);
    to += kPanel<T>;
    for (int source = 0; source < kSources; ++source) {
      const int64_t all = Pointwise::uses(gate, Source(source)) ? depth<T, Pointwise>(s, Source(source)) : 0;
      if (all == 0) continue;
      const T* const rows = s.weight[source] + (Pointwise::weight_row(gate, Source(source)) * s.hidden + unit) * all;
      if (uses_bf16<T, bf16>(s, source)) {
        to = pack_tiles<T>(rows, 1, all, all, count, to);
      } else {
        T* const packed = to;
        to = pack_transposed<T>(rows, all, count, to);
        round_operands<T>(packed, to - packed, rounds_source<T>(s, source));
      }
    }
  }
}

template <typename T, typename Pointwise, bool bf16>
static void pack_backward(const Sequence<T>& s, int64_t panel, T* to) {
  constexpr int width = kLanes<T>;
  int source = 0;
  int64_t column = panel * kPanel<T>;
  for (; column >= round_up(gradient_depth<T, Pointwise>(s, source), kPanel<T>); ++source) {
    column -= round_up(gradient_depth<T, Pointwise>(s, source), kPanel<T>);
  }
  const int64_t all = gradient_depth<T, Pointwise>(s, source);
  for (int p = 0; p < Pointwise::products(Source(source)); ++p) {
    const int rows = Pointwise::gradient_row(Source(source), Pointwise::first_section(Source(source)) + p);
    const T* row = s.weight[source] + rows * s.hidden * all + column;
    if (bf16) {
      to = pack_tiles<T>(row, all, 1, s.hidden, all - column, to);
      continue;
    }
    for (int64_t k = 0; k < s.hidden; ++k, row += all, to += kPanel<T>) {
      const Vector<T> second = column + width < all ? load_partial<T>(row + width, all - column - width) : Vector<T>{};
      store<T>(to, as_operand<T>(load_partial<T>(row, all - column), s.rounds));
      store<T>(to + width, as_operand<T>(second, s.rounds));
    }
  }
}

template <typename T, typename Pointwise, bool bf16>
static void pack(const Sequence<T>& s, bool backward, int64_t begin, int64_t end) {
  for (int64_t panel = begin; panel < end; ++panel) {
    T* const to = s.packed + panel_offset<T, Pointwise, bf16>(s, backward, panel);
    (backward ? pack_backward<T, Pointwise, bf16> : pack_forward<T, Pointwise, bf16>)(s, panel, to);
  }
}

}  // namespace seqmem::SEQMEM_ISA
