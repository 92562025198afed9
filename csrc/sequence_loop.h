// The time loops: a group of rows goes forward through all steps, or back through one chunk of them.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels.h"
#include "sequence.h"
#include "sequence_cells.h"
#include "sequence_memory.h"
#include "sequence_product.h"
#include "vector.h"

namespace seqmem::SEQMEM_ISA {

// Hands out pieces of a group's workspace; without one it only counts.
template <typename T>
struct Arena {
  T* base;
  int64_t used = 0;

  T* take(int64_t numbers) {
    T* const piece = base == nullptr ? nullptr : base + used;
    used += round_up(numbers, kMaxLanes);
    return piece;
  }
};

// Rows of the batch lie far apart, so that the processor does not foresee that a step's numbers follow those of the step before.
template <typename T>
SEQMEM_INLINE void prefetch(const T* from, int64_t count) {
  for (int64_t k = 0; k < count; k += 64 / int64_t(sizeof(T))) __builtin_prefetch(from + k);
}

template <typename T>
SEQMEM_INLINE Vector<T> load_some(const T* from, int64_t count) {
  if (count >= kLanes<T>) return load<T>(from);
  Vector<T> value{};
  for (int64_t j = 0; j < count; ++j) value[j] = from[j];
  return value;
}

template <typename T>
SEQMEM_INLINE void store_some(T* to, const Vector<T>& value, int64_t count) {
  if (count >= kLanes<T>) {
    store<T>(to, value);
  } else {
    for (int64_t j = 0; j < count; ++j) to[j] = value[j];
  }
}

// W columns of the rows of a block as W vectors over the rows; lanes without a row repeat the last one.
template <typename T>
SEQMEM_INLINE void load_lanes(const T* from, int64_t stride, int rows, int64_t columns, Vector<T> (&tile)[kLanes<T>]) {
  for (int j = 0; j < kLanes<T>; ++j) tile[j] = load_some<T>(from + (j < rows ? j : rows - 1) * stride, columns);
  transpose<T>(tile);
}

// (rows, count) to (count, W).
template <typename T>
static void rows_to_lanes(const T* from, int64_t stride, int rows, int64_t count, T* to) {
  constexpr int width = kLanes<T>;
  for (int64_t column = 0; column < count; column += width) {
    Vector<T> tile[width];
    load_lanes<T>(from + column, stride, rows, count - column, tile);
    for (int c = 0; c < width && column + c < count; ++c) store<T>(to + (column + c) * width, tile[c]);
  }
}

// (count, W) to (rows, count).
template <typename T>
static void lanes_to_rows(const T* from, int rows, int64_t count, T* to, int64_t stride) {
  constexpr int width = kLanes<T>;
  for (int64_t column = 0; column < count; column += width) {
    Vector<T> tile[width];
    for (int c = 0; c < width; ++c) tile[c] = column + c < count ? load<T>(from + (column + c) * width) : Vector<T>{};
    transpose<T>(tile);
    for (int r = 0; r < rows; ++r) store_some<T>(to + r * stride + column, tile[r], count - column);
  }
}

template <typename T>
static T dot(const T* a, const T* b, int64_t count) {
  constexpr int width = kLanes<T>;
  Vector<T> sums{};
  int64_t k = 0;
  for (; k + width <= count; k += width) sums += load<T>(a + k) * load<T>(b + k);
  T sum = 0;
  if (k > 0) {
    for (int j = 0; j < width; ++j) sum += sums[j];
  }
  for (; k < count; ++k) sum += a[k] * b[k];
  return sum;
}

// What both directions share: sizes, the split into blocks, and which rows are within their lengths at a step.
template <typename T, typename Rule>
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
  LegsMemory<T> update;

  Group(const Sequence<T>& sequence, int64_t first_row, int64_t count, Arena<T>& arena)
      : s(sequence), first(first_row), rows(count), blocks(count, kMaxRows<T>), padded(round_up(sequence.hidden, width)),
        stored(round_up(sequence.hidden, kMaxLanes)),
        memory(Rule::kHasMemory ? sequence.memories * sequence.order : 0),
        valid(reinterpret_cast<Mask*>(arena.take(blocks.count * width))),
        written(arena.take(Rule::kHasMemory ? blocks.count * sequence.memories * width : 0)),
        update(sequence, blocks, first_row, arena.take(Rule::kHasMemory ? LegsMemory<T>::workspace(sequence.order) : 0)) {}

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

  // Where W hidden units of row r of a block start.
  int64_t at(int64_t b, int r, int64_t unit) const { return blocks.start(b) * padded + unit * blocks.rows(b) + r * width; }
};

template <typename T, typename Rule>
static int64_t depth(const Sequence<T>& s, Source source) {
  if (s.weight[source] == nullptr) return 0;
  return source == from_memory ? s.memories * s.order : source == from_hidden ? s.hidden : s.channels;
}

// Rows of a packed panel: for each gate its bias, then its weights on each source.
template <typename T, typename Rule>
static int64_t panel_rows(const Sequence<T>& s) {
  int64_t rows = 0;
  for (int gate = 0; gate < Rule::kGates; ++gate) {
    ++rows;
    for (int source = 0; source < kSources; ++source) {
      if (Rule::reads(gate, Source(source))) rows += depth<T, Rule>(s, Source(source));
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

template <typename T, typename Rule>
static int64_t packed(const Sequence<T>& s, bool backward) {
  return panels<T, Rule>(s, backward) * kPanel<T> * (backward ? Rule::kProducts * s.hidden : panel_rows<T, Rule>(s));
}

// The first of the sections of gradients that go back to a source.
template <typename Rule>
constexpr int first_section(int source) {
  return source == from_input ? 0 : Rule::kGradients - Rule::kProducts;
}

template <typename T, typename Rule>
static void pack(const Sequence<T>& s, bool backward, int64_t begin, int64_t end) {
  constexpr int64_t columns = kPanel<T>;
  constexpr int width = kLanes<T>;
  const int64_t size = packed<T, Rule>(s, backward) / panels<T, Rule>(s, backward);
  for (int64_t panel = begin; panel < end; ++panel) {
    T* to = s.packed + panel * size;
    if (backward) {
      int source = 0;
      int64_t column = panel * columns;
      for (; column >= round_up(target<T, Rule>(s, source), columns); ++source) {
        column -= round_up(target<T, Rule>(s, source), columns);
      }
      const int64_t all = target<T, Rule>(s, source);
      for (int p = 0; p < Rule::kProducts; ++p) {
        const int rows = Rule::gradient_row(Source(source), first_section<Rule>(source) + p);
        const T* row = s.weight[source] + rows * s.hidden * all + column;
        for (int64_t k = 0; k < s.hidden; ++k, row += all, to += columns) {
          store<T>(to, load_some<T>(row, all - column));
          store<T>(to + width, column + width < all ? load_some<T>(row + width, all - column - width) : Vector<T>{});
        }
      }
      continue;
    }
    const int64_t unit = panel * columns, count = s.hidden - unit < columns ? s.hidden - unit : columns;
    for (int gate = 0; gate < Rule::kGates; ++gate) {
      for (int64_t u = 0; u < columns; ++u) to[u] = s.bias != nullptr && u < count ? s.bias[gate * s.hidden + unit + u] : T(0);
      to += columns;
      for (int source = 0; source < kSources; ++source) {
        if (!Rule::reads(gate, Source(source))) continue;
        const int64_t all = depth<T, Rule>(s, Source(source));
        const T* const rows = s.weight[source] + (Rule::weight_row(gate) * s.hidden + unit) * all;
        for (int64_t half = 0; half < columns; half += width) {
          for (int64_t k = 0; k < all; k += width) {
            Vector<T> tile[width];
            for (int j = 0; j < width; ++j) {
              tile[j] = half + j < count ? load_some<T>(rows + (half + j) * all + k, all - k) : Vector<T>{};
            }
            transpose<T>(tile);
            for (int j = 0; j < width && k + j < all; ++j) store<T>(to + (k + j) * columns + half, tile[j]);
          }
        }
        to += all * columns;
      }
    }
  }
}

template <typename T, typename Rule>
class Forward : Group<T, Rule> {
  using Base = Group<T, Rule>;
  using Base::at, Base::blocks, Base::first, Base::memory, Base::padded, Base::rows, Base::s, Base::stored, Base::valid,
      Base::width, Base::written;

 public:
  Forward(const Sequence<T>& sequence, int64_t first_row, int64_t count, Arena<T>& arena)
      : Base(sequence, first_row, count, arena), input_(arena.take(count * round_up(sequence.channels, width))),
        hidden_(arena.take(count * padded)), next_(arena.take(count * padded)),
        carry_(arena.take(Rule::kHasCarry ? count * padded : 0)), memory_(arena.take(blocks.count * memory * width)),
        sums_(arena.take(Rule::kGates * count * kPanel<T>)),
        weight_uh_(arena.take(Rule::kHasMemory ? sequence.memories * padded : 0)) {}

  void run() {
    Base::take_rows(s.hidden_before, hidden_);
    if constexpr (Rule::kHasCarry) Base::take_rows(s.memory_before, carry_);
    if constexpr (Rule::kHasMemory) {
      Base::gather(s.memory_before, memory, memory, memory_);
      if (s.weight_uh != nullptr) {
        for (int64_t m = 0; m < s.memories; ++m) {
          for (int64_t u = 0; u < padded; ++u) weight_uh_[m * padded + u] = u < s.hidden ? s.weight_uh[m * s.hidden + u] : T(0);
        }
      }
    }
    const int64_t longest = Base::longest();
    for (int64_t t = 0; t < longest; ++t) {
      Base::find_valid(t);
      if (Rule::kHasMemory && s.saved != nullptr && t % s.chunk_steps == 0) {
        Base::scatter(memory_, memory, s.checkpoints + t / s.chunk_steps * s.batch * memory, memory);
      }
      if (s.weight[from_input] != nullptr) read_input(t);
      if constexpr (Rule::kHasMemory) remember(t);
      const int64_t size = panel_rows<T, Rule>(s) * kPanel<T>;
      for (int64_t unit = 0; unit < s.hidden; unit += kPanel<T>) {
        sum(s.packed + unit / kPanel<T> * size);
        advance(t, unit);
      }
      T* const read = hidden_;
      hidden_ = next_;
      next_ = read;
    }
    for (int64_t r = 0; r < rows; ++r) std::memset(output(r, longest), 0, (s.steps - longest) * s.output_width * sizeof(T));
    Base::give_rows(hidden_, s.hidden_after);
    if constexpr (Rule::kHasCarry) Base::give_rows(carry_, s.memory_after);
    if constexpr (Rule::kHasMemory) Base::scatter(memory_, memory, s.memory_after, memory);
  }

 private:
  T* output(int64_t row, int64_t t) const { return s.outputs + ((first + row) * s.steps + t) * s.output_width; }

  void read_input(int64_t t) {
    const int64_t channels = round_up(s.channels, width);
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int r = 0; r < blocks.rows(b); ++r) {
        const T* const from = Base::input(blocks.start(b) + r, t);
        T* const to = input_ + blocks.start(b) * channels + r * width;
        for (int64_t k = 0; k < s.channels; k += width) store<T>(to + k * blocks.rows(b), load_some<T>(from + k, s.channels - k));
      }
    }
  }

  // u = act(W_ux x + W_uh h + <W_um, m> + b_u), and its way into the memory.
  void remember(int64_t t) {
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int64_t m = 0; m < s.memories; ++m) {
        Vector<T> u = broadcast<T>(s.bias_u == nullptr ? T(0) : s.bias_u[m]);
        for (int r = 0; r < blocks.rows(b); ++r) {
          if (s.weight_ux != nullptr) u[r] += dot<T>(s.weight_ux + m * s.channels, Base::input(blocks.start(b) + r, t), s.channels);
          if (s.weight_uh != nullptr) {
            Vector<T> products{};
            for (int64_t k = 0; k < padded; k += width) {
              products += load<T>(hidden_ + at(b, r, k)) * load<T>(weight_uh_ + m * padded + k);
            }
            T sum = 0;
            for (int j = 0; j < width; ++j) sum += products[j];
            u[r] += sum;
          }
        }
        const T* const chain = memory_ + (b * memory + m * s.order) * width;
        if (s.weight_um != nullptr) {
          for (int64_t n = 0; n < s.order; ++n) u += s.weight_um[m * s.order + n] * load<T>(chain + n * width);
        }
        u = activate<T>(s.memory_activation, u);
        store<T>(written + (b * s.memories + m) * width, u);
        if (s.saved == nullptr) continue;
        T* const kept = s.written + (t * s.batch + first + blocks.start(b)) * s.memories + m;
        for (int r = 0; r < blocks.rows(b); ++r) kept[r * s.memories] = u[r];
      }
    }
    Base::update.prepare(t);
    Base::update.update(t, memory_, memory_, memory * width, written, valid);
    if (s.output_width == s.hidden) return;
    for (int64_t b = 0; b < blocks.count; ++b) {
      T* const to = output(blocks.start(b), t) + s.hidden;
      lanes_to_rows<T>(memory_ + b * memory * width, blocks.rows(b), memory, to, s.steps * s.output_width);
      for (int r = 0; r < blocks.rows(b); ++r) {
        if (!valid[b][r]) std::memset(to + r * s.steps * s.output_width, 0, memory * sizeof(T));
      }
    }
  }

  // The sums of all gates for 2W hidden units.
  void sum(const T* w) {
    for (int gate = 0; gate < Rule::kGates; ++gate) {
      Operand<T> operands[kSources];
      int count = 0;
      int64_t deep = 0;
      for (int source = 0; source < kSources; ++source) {
        const int64_t numbers = Rule::reads(gate, Source(source)) ? depth<T, Rule>(s, Source(source)) : 0;
        if (numbers == 0) continue;
        T* const data = source == from_memory ? memory_ : source == from_hidden ? hidden_ : input_;
        operands[count++] = {data, source == from_memory ? Order::by_lanes : Order::by_rows, numbers};
        deep += numbers;
      }
      multiply<T>(blocks, operands, count, w + kPanel<T>, w, sums_ + gate * rows * kPanel<T>);
      w += (1 + deep) * kPanel<T>;
    }
  }

  void advance(int64_t t, int64_t unit) {
    // Copies, as a vector store may alias whatever is read through a pointer.
    const Sequence<T> sequence = s;
    const int64_t kept_stride = stored, from = rows * kPanel<T>;
    const int64_t end = unit + kPanel<T> < padded ? unit + kPanel<T> : padded;
    const T *const sums = sums_, *const hidden = hidden_;
    T *const next = next_, *const carry = carry_;
    for (int64_t b = 0; b < blocks.count; ++b) {
      const int count = blocks.rows(b);
      for (int r = 0; r < count; ++r) {
        const int64_t row = blocks.start(b) + r;
        T* const out = output(row, t);
        T* const keep = sequence.saved + (t * sequence.batch + first + row) * Rule::kSaved * kept_stride;
        const bool is_valid = valid[b][r];
        // Where the next step will write, in a line that no other row is near.
        prefetch(out + sequence.output_width + unit, end - unit);
        for (int64_t u = unit; u < end; u += width) {
          const int64_t place = at(b, r, u), left = sequence.hidden - u;
          Vector<T> h = load<T>(hidden + place);
          if (!is_valid) {
            store<T>(next + place, h);
            store_some<T>(out + u, Vector<T>{}, left);
            continue;
          }
          Vector<T> z[Rule::kGates], kept[Rule::kSaved], c{};
          for (int gate = 0; gate < Rule::kGates; ++gate) z[gate] = load<T>(sums + gate * from + row * kPanel<T> + u - unit);
          if constexpr (Rule::kHasCarry) c = load<T>(carry + place);
          Rule::forward(sequence, z, h, c, kept);
          if constexpr (Rule::kHasCarry) store<T>(carry + place, c);
          store<T>(next + place, h);
          store_some<T>(out + u, h, left);
          if (sequence.saved == nullptr) continue;
          for (int k = 0; k < Rule::kSaved; ++k) store<T>(keep + k * kept_stride + u, kept[k]);
        }
      }
    }
  }

  T* const input_;
  T* hidden_;  // by rows, as the next two
  T* next_;
  T* const carry_;
  T* const memory_;  // by lanes
  T* const sums_;    // (gates, rows, 2W)
  T* const weight_uh_;
};

template <typename T, typename Rule>
static Totals totals(const Sequence<T>& s) {
  constexpr int64_t width = kLanes<T>;
  Totals totals{};
  Columns& columns = totals.columns;
  const int64_t memory = Rule::kHasMemory ? s.memories * s.order : 0;
  columns.hidden = s.weight[from_memory] != nullptr || s.weight_um != nullptr ? memory : 0;
  columns.one = columns.hidden + (s.weight[from_hidden] != nullptr ? s.hidden : 0);
  columns.input = columns.one + 1;
  columns.all = columns.input + s.channels;
  totals.sections = Rule::kGradients;
  totals.panels = (s.hidden + kPanel<T> - 1) / kPanel<T>;
  Arena<T> arena{nullptr};
  const auto place = [&](int64_t numbers) {
    const int64_t start = arena.used;
    arena.take(numbers);
    return start;
  };
  totals.gates = place(totals.sections * totals.panels * columns.all * kPanel<T>);
  if constexpr (Rule::kHasMemory) {
    totals.weight_uh = place(s.memories * round_up(s.hidden, width));
    totals.weight_um = place(memory * width);
    totals.weight_ux = place(s.memories * s.channels * width);
    totals.bias_u = place(s.memories * width);
  }
  totals.size = arena.used;
  return totals;
}

// Rows of (step, batch) that are summed into the weights' gradients at a time.
constexpr int64_t kTotalRows = 200;

// Goes back chunk by chunk. What the weights' gradients need is kept for the steps of one chunk: the gradients of the gates'
// sums, and by lanes the sources they are multiplied with, the memory among them recomputed from the chunk's checkpoint.
template <typename T, typename Rule>
class Backward : Group<T, Rule> {
  using Base = Group<T, Rule>;
  using Base::at, Base::blocks, Base::first, Base::memory, Base::padded, Base::rows, Base::s, Base::stored, Base::valid,
      Base::width, Base::written;

 public:
  Backward(const Sequence<T>& sequence, int64_t first_row, int64_t count, Arena<T>& arena, T* totals_of_thread)
      : Base(sequence, first_row, count, arena), layout_(totals<T, Rule>(sequence)), columns_(layout_.columns),
        hidden_(arena.take(count * padded)), carry_(arena.take(Rule::kHasCarry ? count * padded : 0)),
        memory_(arena.take(blocks.count * memory * width)), gates_(arena.take(Rule::kGradients * count * padded)),
        sums_(arena.take(count * kPanel<T>)), zeros_(arena.take(kPanel<T>)),
        weight_uh_(arena.take(Rule::kHasMemory ? sequence.memories * padded : 0)),
        gradients_(arena.take(Rule::kGradients * layout_.panels * sequence.chunk_steps * count * kPanel<T>)),
        slab_(columns_.all * width), sources_(arena.take((1 + sequence.chunk_steps) * blocks.count * slab_)),
        together_(kTotalRows / count > 1 ? kTotalRows / count : 1), packed_(arena.take(together_ * count * width)),
        totals_(totals_of_thread) {}

  void run() {
    start();
    const int64_t longest = Base::longest();
    if (s.grad_inputs != nullptr) {
      for (int64_t r = 0; r < rows; ++r) std::memset(grad_input(r, longest), 0, (s.steps - longest) * s.channels * sizeof(T));
    }
    for (int64_t chunk = (longest - 1) / s.chunk_steps; chunk >= 0 && longest > 0; --chunk) {
      begin_ = chunk * s.chunk_steps;
      const int64_t end = begin_ + s.chunk_steps < longest ? begin_ + s.chunk_steps : longest;
      if (columns_.hidden > 0) recompute(end);
      for (int64_t t = end - 1; t >= begin_; --t) {
        Base::find_valid(t);
        read_sources(t);
        through_gates(t);
        through_products(t);
        if constexpr (Rule::kHasMemory) through_memory(t);
      }
      add_to_totals(end - begin_);
    }
    Base::give_rows(hidden_, s.grad_hidden_before);
    if constexpr (Rule::kHasCarry) Base::give_rows(carry_, s.grad_memory_before);
    if constexpr (Rule::kHasMemory) Base::scatter(memory_, memory, s.grad_memory_before, memory);
  }

 private:
  const T* hidden_before(int64_t row, int64_t t) const {
    return t == 0 ? s.hidden_before + (first + row) * s.hidden : s.outputs + ((first + row) * s.steps + t - 1) * s.output_width;
  }
  const T* saved(int64_t row, int64_t t) const { return s.saved + (t * s.batch + first + row) * Rule::kSaved * stored; }
  const T* grad_output(int64_t row, int64_t t) const {
    return s.grad_outputs + ((first + row) * s.steps + t) * s.output_width;
  }
  T* grad_input(int64_t row, int64_t t) const { return s.grad_inputs + ((first + row) * s.steps + t) * s.channels; }
  // The sources of step t of a block; at begin_ - 1 only the memory before the chunk.
  T* sources(int64_t t, int64_t block) const { return sources_ + ((t + 1 - begin_) * blocks.count + block) * slab_; }
  void start() {
    std::memset(hidden_, 0, rows * padded * sizeof(T));
    if (s.grad_hidden_after != nullptr) Base::take_rows(s.grad_hidden_after, hidden_);
    if constexpr (Rule::kHasCarry) {
      std::memset(carry_, 0, rows * padded * sizeof(T));
      if (s.grad_memory_after != nullptr) Base::take_rows(s.grad_memory_after, carry_);
    }
    std::memset(zeros_, 0, kPanel<T> * sizeof(T));
    std::memset(gradients_, 0, Rule::kGradients * layout_.panels * s.chunk_steps * rows * kPanel<T> * sizeof(T));
    if constexpr (Rule::kHasMemory) {
      std::memset(memory_, 0, blocks.count * memory * width * sizeof(T));
      if (s.grad_memory_after != nullptr) Base::gather(s.grad_memory_after, memory, memory, memory_);
      if (s.weight_uh != nullptr) {
        for (int64_t m = 0; m < s.memories; ++m) {
          for (int64_t u = 0; u < padded; ++u) weight_uh_[m * padded + u] = u < s.hidden ? s.weight_uh[m * s.hidden + u] : T(0);
        }
      }
    }
  }

  // What was written to memory m of a block at step t.
  Vector<T> read_written(int64_t t, int64_t b, int64_t m) const {
    const T* const from = s.written + (t * s.batch + first + blocks.start(b)) * s.memories + m;
    Vector<T> u{};
    for (int r = 0; r < blocks.rows(b); ++r) u[r] = from[r * s.memories];
    return u;
  }

  void recompute(int64_t end) {
    const T* const checkpoint = s.checkpoints + (begin_ / s.chunk_steps * s.batch + first) * memory;
    for (int64_t b = 0; b < blocks.count; ++b) {
      rows_to_lanes<T>(checkpoint + blocks.start(b) * memory, memory, blocks.rows(b), memory, sources(begin_ - 1, b));
    }
    for (int64_t t = begin_; t < end; ++t) {
      Base::find_valid(t);
      for (int64_t b = 0; b < blocks.count; ++b) {
        for (int64_t m = 0; m < s.memories; ++m) store<T>(written + (b * s.memories + m) * width, read_written(t, b, m));
      }
      Base::update.prepare(t);
      Base::update.update(t, sources(t - 1, 0), sources(t, 0), slab_, written, valid);
    }
  }

  // All of a step's sources but the memory.
  void read_sources(int64_t t) {
    for (int64_t b = 0; b < blocks.count; ++b) {
      T* const to = sources(t, b);
      const int64_t row = blocks.start(b);
      if (columns_.one > columns_.hidden) {
        const int64_t stride = t == 0 ? s.hidden : s.steps * s.output_width;
        rows_to_lanes<T>(hidden_before(row, t), stride, blocks.rows(b), s.hidden, to + columns_.hidden * width);
      }
      store<T>(to + columns_.one * width, broadcast<T>(T(1)));
      rows_to_lanes<T>(Base::input(row, t), s.input_row, blocks.rows(b), s.channels, to + columns_.input * width);
      // Whatever padding holds, NaN even, has no share in the weights' gradients.
      for (int64_t k = columns_.input; k < columns_.all; ++k) {
        store<T>(to + k * width, valid[b] ? load<T>(to + k * width) : Vector<T>{});
      }
    }
  }

  void through_gates(int64_t t) {
    // Copies, as a vector store may alias whatever is read through a pointer.
    const Sequence<T> sequence = s;
    const int64_t kept_stride = stored, section = rows * padded, units = padded;
    const int64_t panel_size = sequence.chunk_steps * rows * kPanel<T>, section_size = layout_.panels * panel_size;
    T *const hidden = hidden_, *const carry = carry_, *const gates = gates_;
    for (int64_t b = 0; b < blocks.count; ++b) {
      const int count = blocks.rows(b);
      for (int r = 0; r < count; ++r) {
        const int64_t row = blocks.start(b) + r;
        T* const to = gradients_ + ((t - begin_) * rows + row) * kPanel<T>;
        const bool is_valid = valid[b][r];
        const T* const kept = saved(row, t);
        const T* const before = hidden_before(row, t);
        const T* const out = sequence.grad_outputs == nullptr ? nullptr : grad_output(row, t);
        if (t > 1) {
          prefetch(hidden_before(row, t - 1), sequence.hidden);
          if (out != nullptr) prefetch(out - sequence.output_width, sequence.hidden);
        }
        for (int64_t u = 0; u < units; u += width) {
          const int64_t place = at(b, r, u), left = sequence.hidden - u;
          Vector<T> dz[Rule::kGradients];
          if (is_valid) {
            Vector<T> values[Rule::kSaved], dc{}, c_before{};
            for (int k = 0; k < Rule::kSaved; ++k) values[k] = load<T>(kept + k * kept_stride + u);
            Vector<T> dh = load<T>(hidden + place);
            if (out != nullptr) dh += load_some<T>(out + u, left);
            if constexpr (Rule::kHasCarry) {
              dc = load<T>(carry + place);
              c_before = t == 0 ? load_some<T>(sequence.memory_before + (first + row) * sequence.hidden + u, left)
                                : load<T>(saved(row, t - 1) + (Rule::kSaved - 1) * kept_stride + u);
            }
            Rule::backward(sequence, values, load_some<T>(before + u, left), c_before, dh, dc, dz);
            store<T>(hidden + place, dh);
            if constexpr (Rule::kHasCarry) store<T>(carry + place, dc);
          } else {
            for (int k = 0; k < Rule::kGradients; ++k) dz[k] = Vector<T>{};
          }
          for (int k = 0; k < Rule::kGradients; ++k) {
            store<T>(gates + k * section + place, dz[k]);
            store<T>(to + k * section_size + u / kPanel<T> * panel_size + u % kPanel<T>, dz[k]);
          }
        }
      }
    }
  }

  void through_products(int64_t t) {
    const T* w = s.packed;
    for (int source = 0; source < kSources; ++source) {
      const int64_t all = target<T, Rule>(s, source);
      Operand<T> operands[Rule::kProducts];
      for (int p = 0; p < Rule::kProducts; ++p) {
        operands[p] = {gates_ + (first_section<Rule>(source) + p) * rows * padded, Order::by_rows, s.hidden};
      }
      for (int64_t column = 0; column < all; column += kPanel<T>, w += Rule::kProducts * s.hidden * kPanel<T>) {
        multiply<T>(blocks, operands, Rule::kProducts, w, zeros_, sums_);
        for (int64_t k = column; k < column + kPanel<T> && k < all; k += width) {
          if (source == from_memory) {
            add_to_memory(k, k - column);
          } else if (source == from_hidden) {
            add_to_hidden(k, k - column);
          } else {
            for (int64_t r = 0; r < rows; ++r) {
              store_some<T>(grad_input(r, t) + k, load<T>(sums_ + r * kPanel<T> + k - column), all - k);
            }
          }
        }
      }
    }
    if (s.grad_inputs != nullptr && s.weight[from_input] == nullptr) {
      for (int64_t r = 0; r < rows; ++r) std::memset(grad_input(r, t), 0, s.channels * sizeof(T));
    }
  }

  void add_to_memory(int64_t k, int64_t column) {
    for (int64_t b = 0; b < blocks.count; ++b) {
      Vector<T> tile[width];
      load_lanes<T>(sums_ + blocks.start(b) * kPanel<T> + column, kPanel<T>, blocks.rows(b), width, tile);
      T* const to = memory_ + (b * memory + k) * width;
      for (int c = 0; c < width && k + c < memory; ++c) store<T>(to + c * width, load<T>(to + c * width) + tile[c]);
    }
  }

  void add_to_hidden(int64_t unit, int64_t column) {
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int r = 0; r < blocks.rows(b); ++r) {
        T* const to = hidden_ + at(b, r, unit);
        store<T>(to, load<T>(to) + load<T>(sums_ + (blocks.start(b) + r) * kPanel<T> + column));
      }
    }
  }

  void through_memory(int64_t t) {
    if (s.output_width != s.hidden && s.grad_outputs != nullptr) add_grad_of_output(t);
    Base::update.prepare(t);
    Base::update.adjoint(t, memory_, memory_, memory * width, written, valid);
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int64_t m = 0; m < s.memories; ++m) {
        const Vector<T> u = read_written(t, b, m);
        const Vector<T> du = load<T>(written + (b * s.memories + m) * width) * slope<T>(s.memory_activation, u);
        if (s.bias_u != nullptr) add(totals_ + layout_.bias_u + m * width, du);
        if (s.weight_ux != nullptr) {
          T* const total = totals_ + layout_.weight_ux + m * s.channels * width;
          for (int64_t k = 0; k < s.channels; ++k) {
            add(total + k * width, du * load<T>(sources(t, b) + (columns_.input + k) * width));
          }
        }
        if (s.weight_um != nullptr) {
          T* const chain = memory_ + (b * memory + m * s.order) * width;
          T* const total = totals_ + layout_.weight_um + m * s.order * width;
          const T* const before = sources(t - 1, b) + m * s.order * width;
          for (int64_t n = 0; n < s.order; ++n) {
            add(chain + n * width, s.weight_um[m * s.order + n] * du);
            add(total + n * width, du * load<T>(before + n * width));
          }
        }
        for (int r = 0; r < blocks.rows(b); ++r) {
          if (valid[b][r]) through_row(t, b, r, m, du[r]);
        }
      }
    }
  }

  SEQMEM_INLINE void add(T* to, const Vector<T>& value) { store<T>(to, load<T>(to) + value); }

  // From what row r wrote to memory m to the hidden state and the input it was made of.
  void through_row(int64_t t, int64_t b, int r, int64_t m, T du) {
    const int64_t row = blocks.start(b) + r;
    if (s.weight_uh != nullptr) {
      const T* const before = hidden_before(row, t);
      T* const total = totals_ + layout_.weight_uh + m * padded;
      for (int64_t u = 0; u < padded; u += width) {
        add(hidden_ + at(b, r, u), du * load<T>(weight_uh_ + m * padded + u));
        add(total + u, du * load_some<T>(before + u, s.hidden - u));
      }
    }
    if (s.weight_ux != nullptr && s.grad_inputs != nullptr) {
      for (int64_t k = 0; k < s.channels; ++k) grad_input(row, t)[k] += du * s.weight_ux[m * s.channels + k];
    }
  }

  void add_grad_of_output(int64_t t) {
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int64_t k = 0; k < memory; k += width) {
        Vector<T> tile[width];
        load_lanes<T>(
            grad_output(blocks.start(b), t) + s.hidden + k, s.steps * s.output_width, blocks.rows(b), memory - k, tile);
        T* const to = memory_ + (b * memory + k) * width;
        for (int c = 0; c < width && k + c < memory; ++c) add(to + c * width, valid[b] ? tile[c] : Vector<T>{});
      }
    }
  }

  // The weights' share of a chunk, a few steps at a time: a few sources of all their rows, packed, times every panel of gradients.
  void add_to_totals(int64_t steps) {
    const Blocks tiles(columns_.all, kMaxRows<T>);
    for (int64_t step = 0; step < steps; step += together_) {
      const int64_t count = steps - step < together_ ? steps - step : together_;
      for (int64_t tile = 0; tile < tiles.count; ++tile) {
        const int64_t column = tiles.start(tile), end = column + tiles.rows(tile);
        pack_sources(begin_ + step, count, column, end);
        for (int section = 0; section < Rule::kGradients; ++section) {
          if (section >= Rule::kProducts && column >= columns_.input) continue;
          if (section < Rule::kGradients - Rule::kProducts && end <= columns_.one) continue;
          for (int64_t panel = 0; panel < layout_.panels; ++panel) {
            const int64_t index = section * layout_.panels + panel;
            T* const total = totals_ + layout_.gates + (index * columns_.all + column) * kPanel<T>;
            multiply_block<T>(
                tiles.rows(tile), Order::by_lanes, packed_, gradients_ + (index * s.chunk_steps + step) * rows * kPanel<T>,
                count * rows, total, kPanel<T>, total);
          }
        }
      }
    }
  }

  // Sources [column, end) of `count` steps, (steps, rows, W).
  void pack_sources(int64_t t, int64_t count, int64_t column, int64_t end) {
    T* to = packed_;
    for (int64_t i = 0; i < count * blocks.count; ++i) {
      const T* const from = sources(t, 0) + i * slab_ + column * width;
      Vector<T> tile[width];
      for (int n = 0; n < width; ++n) tile[n] = column + n < end ? load<T>(from + n * width) : Vector<T>{};
      transpose<T>(tile);
      for (int r = 0; r < blocks.rows(i % blocks.count); ++r, to += width) store<T>(to, tile[r]);
    }
  }

  const Totals layout_;
  const Columns columns_;
  T* const hidden_;  // gradients of what the step reads: by rows, as the next
  T* const carry_;
  T* const memory_;  // by lanes
  T* const gates_;   // gradients of the gates' sums at this step, (kGradients, rows, H padded), each by rows
  T* const sums_;
  T* const zeros_;
  T* const weight_uh_;
  T* const gradients_;  // gates_ of all steps of the chunk, (kGradients, panels, steps, rows, 2W)
  const int64_t slab_;
  T* const sources_;    // (1 + steps, blocks, columns, W)
  const int64_t together_;  // steps that are added to the totals at a time
  T* const packed_;
  T* const totals_;
  int64_t begin_ = 0;
};

template <typename T, typename Rule>
static int64_t workspace(const Sequence<T>& s, int64_t rows, bool backward) {
  Arena<T> arena{nullptr};
  if (backward) {
    Backward<T, Rule>(s, 0, rows, arena, nullptr);
  } else {
    Forward<T, Rule>(s, 0, rows, arena);
  }
  return arena.used;
}

template <typename T, typename Rule>
static void forward(const Sequence<T>& s, int64_t first, int64_t rows, T* workspace) {
  Arena<T> arena{workspace};
  Forward<T, Rule>(s, first, rows, arena).run();
}

template <typename T, typename Rule>
static void backward(const Sequence<T>& s, int64_t first, int64_t rows, T* workspace, T* totals) {
  Arena<T> arena{workspace};
  Backward<T, Rule>(s, first, rows, arena, totals).run();
}

template <typename T, typename Rule>
static SequenceKernels<T> kernels_of() {
  return {
      kLanes<T>,       8 * kMaxRows<T>, totals<T, Rule>,  workspace<T, Rule>, packed<T, Rule>,
      panels<T, Rule>, pack<T, Rule>,   forward<T, Rule>, backward<T, Rule>};
}

template <typename T>
static SequenceKernels<T> kernels_for(Cell cell) {
  switch (cell) {
    case Cell::lstm:
      return kernels_of<T, LstmRule<T>>();
    case Cell::gru:
      return kernels_of<T, GruRule<T>>();
    case Cell::legs_ungated:
      return kernels_of<T, LegsRule<T, false>>();
    case Cell::legs:
      break;
  }
  return kernels_of<T, LegsRule<T, true>>();
}

SequenceTable sequence_table() { return {kernels_for<float>, kernels_for<double>}; }

}  // namespace seqmem::SEQMEM_ISA
