// Base of the forward and the backward multiscale loop: packed parameters, and a group of rows sorted by branch.
#pragma once

#include <cstdint>
#include <cstring>

#include "multiscale.h"
#include "sequence_product.h"
#include "sequence_rows.h"
#include "vector.h"

namespace seqmem::SEQMEM_ISA {

// Offsets of the packed parameters of one layer. Weights are (gates, panels, input_size, 2W) in forward, and (panels, 4 size,
// 2W) of each part in backward. The other parameters, the detector's by parts, are padded with zeros to whole vectors.
template <typename T>
struct PackedLayer {
  int64_t weights[kParts], bias, gain, memory_gain, memory_bias, detector[kParts], end;

  PackedLayer(const Layer& layer, bool backward, int64_t start) {
    const auto take = [&](int64_t numbers) {
      const int64_t at = start;
      start += round_up(numbers, kMaxLanes);
      return at;
    };
    if (backward) {
      for (int part = 0; part < kParts; ++part) {
        weights[part] = take(kMultiscaleGates * layer.size * round_up(part_size(layer, part), kPanel<T>));
      }
    } else {
      weights[0] = take(kMultiscaleGates * layer.input_size() * round_up(layer.size, kPanel<T>));
    }
    bias = take(kMultiscaleGates * layer.padded());
    gain = take(layer.gain < 0 ? 0 : kMultiscaleGates * layer.padded());
    memory_gain = take(layer.memory_gain < 0 ? 0 : layer.padded());
    memory_bias = take(layer.memory_gain < 0 ? 0 : layer.padded());
    for (int part = 0; part < kParts; ++part) detector[part] = take(layer.has_detector ? part_size(layer, part) : 0);
    end = start;
  }
};

template <typename T>
static PackedLayer<T> packed_layer(const Multiscale<T>& s, int64_t layer, bool backward) {
  PackedLayer<T> packed(s.layers[0], backward, 0);
  for (int64_t l = 1; l <= layer; ++l) packed = PackedLayer<T>(s.layers[l], backward, packed.end);
  return packed;
}

template <typename T>
static int64_t multiscale_packed_size(const Multiscale<T>& s, bool backward) {
  return packed_layer(s, s.count - 1, backward).end;
}

// Copies `size` numbers, padded with zeros to whole vectors of kMaxLanes; only zeros if `from` is null.
template <typename T>
static void pack_vector(const T* from, int64_t size, T* to) {
  for (int64_t u = 0; u < round_up(size, kMaxLanes); ++u) to[u] = from != nullptr && u < size ? from[u] : T(0);
}

template <typename T>
static void multiscale_pack(const Multiscale<T>& s, bool backward, int64_t l) {
  constexpr int width = kLanes<T>;
  const Layer& y = s.layers[l];
  const PackedLayer<T> packed = packed_layer(s, l, backward);
  const T* const weight = s.parameters + y.weight;
  T* to = s.packed + packed.weights[0];
  if (!backward) {
    for (int gate = 0; gate < kMultiscaleGates; ++gate) {
      for (int64_t unit = 0; unit < y.size; unit += kPanel<T>) {
        const int64_t count = y.size - unit < kPanel<T> ? y.size - unit : kPanel<T>;
        to = pack_transposed<T>(weight + (gate * y.size + unit) * y.input_size(), y.input_size(), count, to);
      }
    }
  }
  for (int64_t part = 0, from = 0; backward && part < kParts; from += part_size(y, part++)) {
    const int64_t size = part_size(y, part);
    to = s.packed + packed.weights[part];
    for (int64_t column = 0; column < size; column += kPanel<T>) {
      const T* row = weight + from + column;
      for (int64_t k = 0; k < kMultiscaleGates * y.size; ++k, row += y.input_size(), to += kPanel<T>) {
        store<T>(to, load_partial<T>(row, size - column));
        store<T>(to + width, column + width < size ? load_partial<T>(row + width, size - column - width) : Vector<T>{});
      }
    }
  }
  for (int gate = 0; gate < kMultiscaleGates; ++gate) {
    const int64_t from = gate * y.size, at = gate * y.padded();
    pack_vector<T>(y.bias < 0 ? nullptr : s.parameters + y.bias + from, y.size, s.packed + packed.bias + at);
    if (y.gain >= 0) pack_vector<T>(s.parameters + y.gain + from, y.size, s.packed + packed.gain + at);
  }
  if (y.memory_gain >= 0) {
    pack_vector<T>(s.parameters + y.memory_gain, y.size, s.packed + packed.memory_gain);
    pack_vector<T>(y.memory_bias < 0 ? nullptr : s.parameters + y.memory_bias, y.size, s.packed + packed.memory_bias);
  }
  const T* detector = weight + kMultiscaleGates * y.size * y.input_size();
  for (int part = 0; y.has_detector && part < kParts; detector += part_size(y, part++)) {
    pack_vector<T>(detector, part_size(y, part), s.packed + packed.detector[part]);
  }
}

template <typename T>
SEQMEM_INLINE T sum_of(const Vector<T>& x) {
  T sum = 0;
  for (int j = 0; j < kLanes<T>; ++j) sum += x[j];
  return sum;
}

// 1 in the first `count` lanes, 0 in the others.
template <typename T>
SEQMEM_INLINE Vector<T> first_lanes(int64_t count) {
  Vector<T> ones{};
  for (int j = 0; j < kLanes<T>; ++j) ones[j] = j < count ? T(1) : T(0);
  return ones;
}

constexpr double kNormEpsilon = 1e-5;  // as torch.nn.LayerNorm

// Mean and 1 / sqrt(variance + epsilon) of `size` numbers padded with zeros to whole vectors; `last` masks the last vector.
template <typename T>
struct Moments {
  T mean, scale;

  Moments(const T* x, int64_t size, const Vector<T>& last) {
    constexpr int width = kLanes<T>;
    Vector<T> total{}, squares{};
    for (int64_t u = 0; u < size; u += width) total += load<T>(x + u);
    mean = sum_of<T>(total) / T(size);
    for (int64_t u = 0; u < size; u += width) {
      const Vector<T> deviation = load<T>(x + u) - mean;
      squares += deviation * deviation * (u + width <= size ? broadcast<T>(T(1)) : last);
    }
    scale = T(1) / __builtin_sqrt(sum_of<T>(squares) / T(size) + T(kNormEpsilon));
  }
};

template <typename T>
struct MultiscaleGroup {
  static constexpr int width = kLanes<T>;

  const Multiscale<T>& s;
  const int64_t first, rows;
  int64_t widest = 0;        // units of the largest layer, padded to whole vectors
  int64_t widest_panel = 0;  // the same, padded to whole panels
  int64_t* const order;      // (rows,) valid rows sorted by branch, COPY last
  int64_t counts[kBranches];
  int64_t active;  // valid rows not in COPY
  int64_t valid;   // rows within their lengths

  MultiscaleGroup(const Multiscale<T>& sequence, int64_t first_row, int64_t row_count, Arena<T>& arena)
      : s(sequence), first(first_row), rows(row_count),
        order(reinterpret_cast<int64_t*>(arena.allocate(row_count * int64_t(sizeof(int64_t) / sizeof(float))))) {
    for (int64_t l = 0; l < s.count; ++l) {
      if (s.layers[l].padded() > widest) widest = s.layers[l].padded();
    }
    widest_panel = round_up(widest, kPanel<T>);
  }

  bool is_valid(int64_t row, int64_t t) const { return s.lengths == nullptr || t < s.lengths[first + row]; }
  int64_t longest() const {
    if (s.lengths == nullptr) return s.steps;
    int64_t length = 0;
    for (int64_t r = 0; r < rows; ++r) length = s.lengths[first + r] > length ? s.lengths[first + r] : length;
    return length;
  }

  // Branch of a row from its boundary at the previous step and the boundary of the layer below; kBranches for COPY. A soft
  // boundary has a gradient even at zero, so its rows use all inputs.
  int branch(const Layer& layer, T previous, T below) const {
    if (s.soft) return above_and_below;
    if (previous == T(0)) return below == T(0) ? kBranches : below_only;
    return below == T(0) ? above_only : above_and_below;
  }

  // Sorts the rows by branch; previous(r) and below(r) are their boundaries.
  template <typename Previous, typename Below>
  void sort(const Layer& layer, int64_t t, const Previous& previous, const Below& below) {
    int64_t starts[kBranches + 2] = {};
    for (int64_t r = 0; r < rows; ++r) {
      if (is_valid(r, t)) ++starts[branch(layer, previous(r), below(r)) + 1];
    }
    for (int b = 0; b < kBranches; ++b) counts[b] = starts[b + 1];
    for (int b = 0; b <= kBranches; ++b) starts[b + 1] += starts[b];
    active = starts[kBranches];
    valid = starts[kBranches + 1];
    for (int64_t r = 0; r < rows; ++r) {
      if (is_valid(r, t)) order[starts[branch(layer, previous(r), below(r))]++] = r;
    }
  }

  // Offset of W numbers of row r of a block in an operand of `depth`, by rows.
  static int64_t offset(const Blocks& blocks, int64_t depth, int64_t b, int r, int64_t k) {
    return blocks.start(b) * round_up(depth, width) + k * blocks.rows(b) + r * width;
  }

  // Gathers rows order[from], ... times factor(row) into an operand.
  template <typename Source, typename Factor>
  void gather(const Blocks& blocks, int64_t from, int64_t depth, const Source& source, const Factor& factor, T* to) const {
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int r = 0; r < blocks.rows(b); ++r) {
        const int64_t row = order[from + blocks.start(b) + r];
        const T* const numbers = source(row);
        const T scale = factor(row);
        for (int64_t k = 0; k < depth; k += width) {
          store<T>(to + offset(blocks, depth, b, r, k), scale * load<T>(numbers + k));
        }
      }
    }
  }

  // Converts (B, units) to and from (rows, padded_units) of the group. Loading adds zero: a copy would not flush a denormal.
  void load_units(const T* from, T* to) const {
    for (int64_t l = 0; l < s.count; ++l) {
      const Layer& y = s.layers[l];
      for (int64_t r = 0; r < rows; ++r) {
        const T* const row = from + (first + r) * s.units + y.unit;
        for (int64_t u = 0; u < y.padded(); u += width) {
          const Vector<T> units = u < y.size ? load_partial<T>(row + u, y.size - u) : Vector<T>{};
          store<T>(to + r * s.padded_units + y.padded_unit + u, units + T(0));
        }
      }
    }
  }
  void store_units(const T* from, T* to) const {
    for (int64_t l = 0; l < s.count; ++l) {
      const Layer& y = s.layers[l];
      for (int64_t r = 0; r < rows; ++r) {
        T* const row = to + (first + r) * s.units + y.unit;
        for (int64_t u = 0; u < y.size; u += width) {
          store_partial<T>(row + u, load<T>(from + r * s.padded_units + y.padded_unit + u), y.size - u);
        }
      }
    }
  }
};

}  // namespace seqmem::SEQMEM_ISA
