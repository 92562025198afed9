// The way back: a group of rows goes back through all steps, chunk by chunk.
#pragma once

#include <cstdint>
#include <cstring>

#include "sequence_group.h"
#include "sequence_pack.h"

namespace seqmem::SEQMEM_ISA {

template <typename T, typename Rule, bool half>
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
  totals.lines = half ? round_up(columns.all, kTileLines) : columns.all;
  totals.gates = place(totals.sections * totals.panels * totals.lines * kPanel<T>);
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
constexpr int64_t kTotalRows = 400;

// Goes back chunk by chunk. What the weights' gradients need is kept for the steps of one chunk: the gradients of the gates'
// sums, and by lanes the sources they are multiplied with, the memory among them recomputed from the chunk's checkpoint.
template <typename T, typename Rule, bool half>
class Backward : Group<T, Rule, half> {
  using Base = Group<T, Rule, half>;
  using Mask = typename Base::Mask;
  using Base::at, Base::blocks, Base::first, Base::memory, Base::padded, Base::rows, Base::s, Base::stored, Base::valid,
      Base::width, Base::written;

  // A memory is recomputed by lanes, and bfloat16 is packed from there.
  static constexpr bool kSourcesByRows = !Rule::kHasMemory && !half;

 public:
  Backward(const Sequence<T>& sequence, int64_t first_row, int64_t count, Arena<T>& arena, T* totals_of_thread)
      : Base(sequence, first_row, count, arena), layout_(totals<T, Rule, half>(sequence)), columns_(layout_.columns),
        hidden_(arena.take(count * padded)), carry_(arena.take(Rule::kHasCarry ? count * padded : 0)),
        memory_(arena.take(blocks.count * memory * width)), sums_(arena.take(blocks.lines() * kPanel<T>)),
        zeros_(arena.take(half ? 0 : kPanel<T>)),
        weight_uh_(arena.take(Rule::kHasMemory ? sequence.memories * padded : 0)),
        gradients_(arena.take(Rule::kGradients * layout_.panels * sequence.chunk_steps * count * kPanel<T>)),
        slab_(kSourcesByRows ? round_up(columns_.all, width) : columns_.all * width),
        sources_(arena.take((1 + sequence.chunk_steps) * (kSourcesByRows ? count : blocks.count) * slab_)),
        together_(kTotalRows / count > 1 ? kTotalRows / count : 1),
        together_padded_(round_up(kTotalRows > count ? kTotalRows : count, kTileDepth)),
        packed_(arena.take(
            half ? together_padded_ * kTileLines + kTileDepth : kSourcesByRows ? 0 : together_padded_ * width)),
        narrow_gradients_(arena.take(half ? Rule::kGradients * layout_.panels * together_padded_ * kPanel<T> / 2 : 0)),
        narrow_(Base::take_narrow(arena, all_narrow())), totals_(totals_of_thread) {}

  void run() {
    const typename Base::Unit unit(s.tiles);
    start();
    const int64_t longest = Base::longest();
    if (s.grad_inputs != nullptr) {
      for (int64_t r = 0; r < rows; ++r) std::memset(grad_input(r, longest), 0, (s.steps - longest) * s.channels * sizeof(T));
    }
    for (int64_t chunk = (longest - 1) / s.chunk_steps; chunk >= 0 && longest > 0; --chunk) {
      begin_ = chunk * s.chunk_steps;
      const int64_t end = begin_ + s.chunk_steps < longest ? begin_ + s.chunk_steps : longest;
      if (columns_.hidden > 0) recompute(end);
      int64_t first_step = end;
      for (int64_t t = end - 1; t >= begin_; --t) {
        Base::find_valid(t);
        read_sources(t);
        if (through_gates(t)) {
          through_products(unit, t);
          first_step = t;
        } else if (s.grad_inputs != nullptr) {
          for (int64_t r = 0; r < rows; ++r) std::memset(grad_input(r, t), 0, s.channels * sizeof(T));
        }
        if constexpr (Rule::kHasMemory) through_memory(t);
      }
      add_to_totals(unit, first_step - begin_, end - begin_);
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
  T* row_sources(int64_t t, int64_t row) const { return sources_ + ((t + 1 - begin_) * rows + row) * slab_; }
  void start() {
    std::memset(hidden_, 0, rows * padded * sizeof(T));
    if (s.grad_hidden_after != nullptr) Base::take_rows(s.grad_hidden_after, hidden_);
    if constexpr (Rule::kHasCarry) {
      std::memset(carry_, 0, rows * padded * sizeof(T));
      if (s.grad_memory_after != nullptr) Base::take_rows(s.grad_memory_after, carry_);
    }
    if (!half) std::memset(zeros_, 0, kPanel<T> * sizeof(T));
    Base::clear(narrow_, all_narrow());
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

  // All of a step's sources but the memory. Whatever padding holds, NaN even, has no share in the weights' gradients.
  void read_sources(int64_t t) {
    if constexpr (kSourcesByRows) {
      for (int64_t b = 0; b < blocks.count; ++b) {
        for (int r = 0; r < blocks.rows(b); ++r) {
          const int64_t row = blocks.start(b) + r;
          T* const to = row_sources(t, row);
          if (columns_.one > 0) std::memcpy(to, hidden_before(row, t), s.hidden * sizeof(T));
          to[columns_.one] = T(1);
          if (valid[b][r]) {
            std::memcpy(to + columns_.input, Base::input(row, t), s.channels * sizeof(T));
          } else {
            std::memset(to + columns_.input, 0, s.channels * sizeof(T));
          }
          if (t > 0) prefetch(Base::input(row, t - 1), s.channels);
        }
      }
      return;
    }
    for (int64_t b = 0; b < blocks.count; ++b) {
      T* const to = sources(t, b);
      const int64_t row = blocks.start(b);
      if (columns_.one > columns_.hidden) {
        const int64_t stride = t == 0 ? s.hidden : s.steps * s.output_width;
        rows_to_lanes<T>(hidden_before(row, t), stride, blocks.rows(b), s.hidden, to + columns_.hidden * width);
      }
      store<T>(to + columns_.one * width, broadcast<T>(T(1)));
      rows_to_lanes<T>(Base::input(row, t), s.input_row, blocks.rows(b), s.channels, to + columns_.input * width);
      for (int r = 0; t > 0 && r < blocks.rows(b); ++r) prefetch(Base::input(row + r, t - 1), s.channels);
      for (int64_t k = columns_.input; k < columns_.all; ++k) {
        store<T>(to + k * width, valid[b] ? load<T>(to + k * width) : Vector<T>{});
      }
    }
  }

  // False where nothing flows back to the gates: what came from later steps has vanished.
  bool through_gates(int64_t t) {
    Mask some{};
    // Copies, as a vector store may alias whatever is read through a pointer.
    const Sequence<T> sequence = s;
    const int64_t kept_stride = stored, units = padded, apart = sequence.batch * Rule::kSaved * kept_stride;
    const int64_t panel_size = sequence.chunk_steps * rows * kPanel<T>, section_size = layout_.panels * panel_size;
    T *const hidden = hidden_, *const carry = carry_;
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
            for (int k = 0; k < Rule::kSaved; ++k) {
              values[k] = load<T>(kept + k * kept_stride + u);
              if (t > 1) __builtin_prefetch(kept + k * kept_stride + u - 2 * apart, 0, 2);
            }
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
            Mask bits;
            std::memcpy(&bits, &dz[k], sizeof bits);
            some |= bits;
            if constexpr (half) {
              store_half(Base::narrow_at(narrow_, all_narrow(), b, r, k * tile_groups(sequence.hidden) * kTileDepth + u), dz[k]);
            }
            store<T>(to + k * section_size + u / kPanel<T> * panel_size + u % kPanel<T>, dz[k]);
          }
        }
      }
    }
    bool any = false;
    for (int j = 0; j < width; ++j) any = any || some[j] << 1 != 0;  // but for the sign of zero
    return any;
  }

  // Numbers of a row of narrow_.
  int64_t all_narrow() const { return half ? Rule::kGradients * tile_groups(s.hidden) * kTileDepth : 0; }

  void through_products(const typename Base::Unit& unit, int64_t t) {
    const T* w = s.packed;
    for (int source = 0; source < kSources; ++source) {
      const int64_t all = target<T, Rule>(s, source);
      for (int64_t column = 0; column < all; column += kPanel<T>) {
        if constexpr (half) {
          const int64_t groups = tile_groups(s.hidden);
          Base::template multiply_narrow<true>(
              unit, narrow_, Rule::kGradients * groups, first_section<Rule>(source) * groups, Rule::kProducts * groups, w, sums_);
          w += Rule::kProducts * groups * kGroup / 2;
        } else {
          Operand<T> operands[Rule::kProducts];
          for (int p = 0; p < Rule::kProducts; ++p) {
            const int64_t section = first_section<Rule>(source) + p, panel_size = s.chunk_steps * rows * kPanel<T>;
            operands[p] = {
                gradients_ + section * layout_.panels * panel_size + (t - begin_) * rows * kPanel<T>, Order::by_panels, s.hidden,
                panel_size};
          }
          multiply<T>(blocks, operands, Rule::kProducts, all - column, w, zeros_, sums_);
          w += Rule::kProducts * s.hidden * kPanel<T>;
        }
        for (int64_t k = column; k < column + kPanel<T> && k < all; k += width) {
          if (source == from_memory) {
            add_to_memory(k, k - column);
          } else if (source == from_hidden) {
            add_to_hidden(k, k - column);
          } else {
            give_to_input(t, k, k - column);
          }
        }
      }
    }
    if (s.grad_inputs != nullptr && s.weight[from_input] == nullptr) {
      for (int64_t r = 0; r < rows; ++r) std::memset(grad_input(r, t), 0, s.channels * sizeof(T));
    }
  }

  void give_to_input(int64_t t, int64_t k, int64_t column) {
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int r = 0; r < blocks.rows(b); ++r) {
        const T* const from = sums_ + (blocks.line(b) + r) * kPanel<T> + column;
        T* const to = grad_input(blocks.start(b) + r, t) + k;
        store_some<T>(to, load<T>(from), s.channels - k);
        if (t > 0) prefetch_to_write(to - s.channels, width);
      }
    }
  }

  void add_to_memory(int64_t k, int64_t column) {
    for (int64_t b = 0; b < blocks.count; ++b) {
      Vector<T> tile[width];
      load_lanes<T>(sums_ + blocks.line(b) * kPanel<T> + column, kPanel<T>, blocks.rows(b), width, tile);
      T* const to = memory_ + (b * memory + k) * width;
      for (int c = 0; c < width && k + c < memory; ++c) store<T>(to + c * width, load<T>(to + c * width) + tile[c]);
    }
  }

  void add_to_hidden(int64_t unit, int64_t column) {
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int r = 0; r < blocks.rows(b); ++r) {
        T* const to = hidden_ + at(b, r, unit);
        store<T>(to, load<T>(to) + load<T>(sums_ + (blocks.line(b) + r) * kPanel<T> + column));
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
        // Whatever padding holds, NaN even, has no share.
        const Vector<T> flowing = load<T>(written + (b * s.memories + m) * width) * slope<T>(s.memory_activation, u);
        const Vector<T> du = valid[b] ? flowing : Vector<T>{};
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

  // The weights' share of a chunk from step `begin` of it on, a few steps at a time: a few sources of all their rows, packed, times
  // every panel of gradients.
  void add_to_totals(const typename Base::Unit& unit, int64_t begin, int64_t steps) {
    const Blocks tiles(columns_.all, half ? 2 * kTileLines : kMaxRows<T>);
    for (int64_t step = begin; step < steps; step += together_) {
      const int64_t count = steps - step < together_ ? steps - step : together_;
      if constexpr (half) this->narrow_gradients(step, count * rows);
      for (int64_t tile = 0; tile < tiles.count; ++tile) {
        const int64_t column = half ? tile * 2 * kTileLines : tiles.start(tile);
        const int64_t end = half ? column + 2 * kTileLines : column + tiles.rows(tile);
        if constexpr (half) {
          this->narrow_sources(step, count, column, end);
        } else if constexpr (!kSourcesByRows) {
          pack_sources(begin_ + step, count, column, end);
        }
        for (int section = 0; section < Rule::kGradients; ++section) {
          if (section >= Rule::kProducts && column >= columns_.input) continue;
          if (section < Rule::kGradients - Rule::kProducts && end <= columns_.one) continue;
          for (int64_t panel = 0; panel < layout_.panels; ++panel) {
            const int64_t index = section * layout_.panels + panel;
            T* const total = totals_ + layout_.gates + (index * layout_.lines + column) * kPanel<T>;
            if constexpr (half) {
              this->multiply_totals(unit, end, column, count * rows, index, total);
            } else {
              const Piece<T> piece = kSourcesByRows
                  ? Piece<T>{row_sources(begin_ + step, 0) + column, Order::by_lanes, count * rows, slab_}
                  : Piece<T>{packed_, Order::by_lanes, count * rows};
              multiply_block<T>(
                  tiles.rows(tile), s.hidden - panel * kPanel<T>, &piece, 1,
                  gradients_ + (index * s.chunk_steps + step) * rows * kPanel<T>, total, kPanel<T>, total);
            }
          }
        }
      }
    }
  }

#if SEQMEM_VECTOR_BYTES == 64
  // The gradients of `depth` rows from step `step` of the chunk on, as the tiles read them.
  void narrow_gradients(int64_t step, int64_t depth) {
    const int64_t groups = tile_groups(depth);
    for (int64_t index = 0; index < Rule::kGradients * layout_.panels; ++index) {
      const T* const from = gradients_ + (index * s.chunk_steps + step) * rows * kPanel<T>;
      Half* const to = reinterpret_cast<Half*>(narrow_gradients_) + index * together_padded_ * kTileColumns;
      for (int64_t k = 0; k < groups * kTileDepth; k += 2) {
        Half* const pair = to + k / kTileDepth * kGroup + k % kTileDepth / 2 * kTileColumns;
        for (int part = 0; part < 2; ++part) {
          const T* const line = from + k * kPanel<T> + part * width;
          store_pair(
              pair + part * (kGroup / 2), k < depth ? load<T>(line) : Vector<T>{},
              k + 1 < depth ? load<T>(line + kPanel<T>) : Vector<T>{});
        }
      }
    }
  }

  // Sources [column, end) of `count` steps: (sources, rows of all steps) in bfloat16, zero from there to a whole group.
  void narrow_sources(int64_t step, int64_t count, int64_t column, int64_t end) {
    for (int64_t n = column; n < end; ++n) {
      Half* const line = reinterpret_cast<Half*>(packed_) + (n - column) * together_padded_;
      Half* to = line;
      for (int64_t i = 0; i < count * blocks.count; ++i) {
        const T* const from = sources(begin_ + step, 0) + i * slab_ + n * width;
        store_half(to, n < columns_.all ? load<T>(from) : Vector<T>{});
        to += blocks.rows(i % blocks.count);
      }
      std::memset(to, 0, (line + round_up(count * rows, kTileDepth) - to) * sizeof(Half));
    }
  }

  void multiply_totals(const Tiles& unit, int64_t end, int64_t column, int64_t depth, int64_t index, T* total) const {
    const int64_t lines = (end < layout_.lines ? end : layout_.lines) - column;
    unit.multiply<false>(
        lines / kTileLines, reinterpret_cast<const Half*>(packed_), kTileLines * together_padded_, together_padded_, kTileDepth,
        reinterpret_cast<const Half*>(narrow_gradients_) + index * together_padded_ * kTileColumns, tile_groups(depth), total);
  }
#endif

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
  T* const sums_;
  T* const zeros_;
  T* const weight_uh_;
  T* const gradients_;  // of the gates' sums at the steps of the chunk, (kGradients, panels, steps, rows, 2W)
  const int64_t slab_;
  T* const sources_;    // (1 + steps, blocks, columns, W), or (1 + steps, rows, columns)
  const int64_t together_;  // steps that are added to the totals at a time
  const int64_t together_padded_;  // room for their rows, which no group of fewer rows exceeds
  T* const packed_;
  T* const narrow_gradients_;
  T* const narrow_;  // those of this step in bfloat16, one section after the other, each from a whole group on
  T* const totals_;
  int64_t begin_ = 0;
};

}  // namespace seqmem::SEQMEM_ISA
