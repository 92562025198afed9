// The weights as the loops read them, and where what they are multiplied with comes from.
#pragma once

#include <cstdint>
#include <cstring>

#include "sequence_cells.h"
#include "sequence_product.h"
#include "sequence_rows.h"
#include "sequence_tiles.h"

namespace seqmem::SEQMEM_ISA {

template <typename T, typename Rule>
static int64_t depth(const Sequence<T>& s, Source source) {
  if (s.weight[source] == nullptr) return 0;
  return source == from_memory ? s.memories * s.order : source == from_hidden ? s.hidden : s.channels;
}

// Whether a source is multiplied in bfloat16: a narrow input is not worth it.
template <typename T, bool half>
static bool is_half(const Sequence<T>& s, int source) {
  return half && (source != from_input || s.channels >= kTileDepth);
}

// Rows of 2W numbers that the weights on a source take: one for each k, or for two where they are in bfloat16.
template <typename T, typename Rule, bool half>
static int64_t packed_rows(const Sequence<T>& s, int source) {
  const int64_t numbers = depth<T, Rule>(s, Source(source));
  return is_half<T, half>(s, source) ? tile_groups(numbers) * kTileDepth / 2 : numbers;
}

// Rows of a packed panel: for each gate its bias, then its weights on each source.
template <typename T, typename Rule, bool half>
static int64_t panel_rows(const Sequence<T>& s) {
  int64_t rows = 0;
  for (int gate = 0; gate < Rule::kGates; ++gate) {
    ++rows;
    for (int source = 0; source < kSources; ++source) {
      if (Rule::reads(gate, Source(source))) rows += packed_rows<T, Rule, half>(s, source);
    }
  }
  return rows;
}

// Where the gates' gradients go back to, and its size.
template <typename T, typename Rule>
static int64_t target(const Sequence<T>& s, int source) {
  return source == from_input && s.grad_inputs == nullptr ? 0 : depth<T, Rule>(s, Source(source));
}

// Forward: one panel for each 2W hidden units. Back: one for each 2W numbers of the memory, the hidden state and the input.
template <typename T, typename Rule>
static int64_t panels(const Sequence<T>& s, bool backward) {
  constexpr int64_t columns = kPanel<T>;
  if (!backward) return (s.hidden + columns - 1) / columns;
  int64_t count = 0;
  for (int source = 0; source < kSources; ++source) count += (target<T, Rule>(s, source) + columns - 1) / columns;
  return count;
}

template <typename T, typename Rule, bool half>
static int64_t packed(const Sequence<T>& s, bool backward) {
  const int64_t rows = half ? tile_groups(s.hidden) * kTileDepth / 2 : s.hidden;
  return panels<T, Rule>(s, backward) * kPanel<T> * (backward ? Rule::kProducts * rows : panel_rows<T, Rule, half>(s));
}

// The first of the sections of gradients that go back to a source.
template <typename Rule>
constexpr int first_section(int source) {
  return source == from_input ? 0 : Rule::kGradients - Rule::kProducts;
}

// Weights (depth, columns) as the tiles read them. Number (k, column) is at weights[k * down + column * along].
template <typename T>
static T* pack_tiles(const T* weights, int64_t down, int64_t along, int64_t depth, int64_t columns, T* to) {
  Half* const halves = reinterpret_cast<Half*>(to);
  for (int64_t k = 0; k < round_up(depth, kTileDepth); ++k) {
    Half* const group = halves + k / kTileDepth * kGroup + k % kTileDepth / 2 * kTileColumns + k % 2;
    for (int64_t column = 0; column < kTileColumns; ++column) {
      const bool inside = k < depth && column < columns;
      group[column / 16 * (kGroup / 2) + column % 16 * 2] = inside ? to_half(float(weights[k * down + column * along])) : Half(0);
    }
  }
  return to + tile_groups(depth) * kGroup / 2;
}

template <typename T, typename Rule, bool half>
static void pack_forward(const Sequence<T>& s, int64_t panel, T* to) {
  const int64_t unit = panel * kPanel<T>, count = s.hidden - unit < kPanel<T> ? s.hidden - unit : kPanel<T>;
  for (int gate = 0; gate < Rule::kGates; ++gate) {
    for (int64_t u = 0; u < kPanel<T>; ++u) to[u] = s.bias != nullptr && u < count ? s.bias[gate * s.hidden + unit + u] : T(0);
    to += kPanel<T>;
    for (int source = 0; source < kSources; ++source) {
      const int64_t all = Rule::reads(gate, Source(source)) ? depth<T, Rule>(s, Source(source)) : 0;
      if (all == 0) continue;
      const T* const rows = s.weight[source] + (Rule::weight_row(gate) * s.hidden + unit) * all;
      if (is_half<T, half>(s, source)) {
        to = pack_tiles<T>(rows, 1, all, all, count, to);
      } else {
        to = pack_transposed<T>(rows, all, count, to);
      }
    }
  }
}

template <typename T, typename Rule, bool half>
static void pack_backward(const Sequence<T>& s, int64_t panel, T* to) {
  constexpr int width = kLanes<T>;
  int source = 0;
  int64_t column = panel * kPanel<T>;
  for (; column >= round_up(target<T, Rule>(s, source), kPanel<T>); ++source) {
    column -= round_up(target<T, Rule>(s, source), kPanel<T>);
  }
  const int64_t all = target<T, Rule>(s, source);
  for (int p = 0; p < Rule::kProducts; ++p) {
    const int rows = Rule::gradient_row(Source(source), first_section<Rule>(source) + p);
    const T* row = s.weight[source] + rows * s.hidden * all + column;
    if (half) {
      to = pack_tiles<T>(row, all, 1, s.hidden, all - column, to);
      continue;
    }
    for (int64_t k = 0; k < s.hidden; ++k, row += all, to += kPanel<T>) {
      store<T>(to, load_some<T>(row, all - column));
      store<T>(to + width, column + width < all ? load_some<T>(row + width, all - column - width) : Vector<T>{});
    }
  }
}

template <typename T, typename Rule, bool half>
static void pack(const Sequence<T>& s, bool backward, int64_t begin, int64_t end) {
  const int64_t size = packed<T, Rule, half>(s, backward) / panels<T, Rule>(s, backward);
  for (int64_t panel = begin; panel < end; ++panel) {
    (backward ? pack_backward<T, Rule, half> : pack_forward<T, Rule, half>)(s, panel, s.packed + panel * size);
  }
}

}  // namespace seqmem::SEQMEM_ISA
