// Forward time loop: runs a group of rows through all steps.
#pragma once

#include <cstdint>
#include <cstring>

#include "sequence_group.h"
#include "sequence_pack.h"

namespace seqmem::SEQMEM_ISA {

template <typename T, typename Pointwise, bool bf16>
class Forward : Group<T, Pointwise, bf16> {
  // Vectors of hidden units computed interleaved, to hide the latency of one dependency chain.
  static constexpr int kInterleaved = 2;

  using Base = Group<T, Pointwise, bf16>;
  using Base::blocks, Base::first, Base::memory, Base::memory_input, Base::offset, Base::padded, Base::rows, Base::s,
      Base::valid, Base::width;

 public:
  Forward(const Sequence<T>& sequence, int64_t first_row, int64_t count, Arena<T>& arena)
      : Base(sequence, first_row, count, arena), input_(arena.allocate(count * round_up(sequence.channels, width))),
        hidden_(arena.allocate(count * padded)), next_(arena.allocate(count * padded)),
        carry_(arena.allocate(Pointwise::kHasCarry ? count * padded : 0)),
        memory_(arena.allocate(blocks.count * memory * width)),
        reset_(arena.allocate(Pointwise::kResetBefore ? count * padded : 0)),
        sums_(arena.allocate(
            (Pointwise::kResetBefore ? panels<T, Pointwise>(sequence, false) : 1) * Pointwise::kGates * blocks.sum_rows() *
            kPanel<T>)),
        weight_uh_(arena.allocate(Pointwise::kHasMemory ? sequence.memories * padded : 0)) {
    for (int source = 0; source < kSources; ++source) bf16_sources_[source] = Base::allocate_bf16(arena, bf16_depth(source));
    rounded_memory_ = arena.allocate(rounds_memory() ? blocks.count * memory * width : 0);
    rounded_hidden_ = arena.allocate(rounds_source<T>(s, from_hidden) ? count * padded : 0);
  }

  void run() {
    const typename Base::Unit unit(s.amx);
    for (int source = 0; source < kSources; ++source) Base::clear_bf16(bf16_sources_[source], bf16_depth(source));
    Base::load_rows(s.hidden_before, hidden_);
    if constexpr (Pointwise::kHasCarry) Base::load_rows(s.memory_before, carry_);
    if constexpr (Pointwise::kHasMemory) {
      Base::gather(s.memory_before, memory, memory, memory_);
      if (s.weight_uh != nullptr) {
        for (int64_t m = 0; m < s.memories; ++m) {
          for (int64_t u = 0; u < padded; ++u) weight_uh_[m * padded + u] = u < s.hidden ? s.weight_uh[m * s.hidden + u] : T(0);
        }
      }
    }
    const int64_t longest = Base::longest();
    for (int64_t t = 0; t < longest; ++t) {
      Base::find_valid_rows(t);
      if (Pointwise::kHasMemory && s.saved != nullptr && t % s.chunk_steps == 0) {
        Base::scatter(memory_, memory, s.checkpoints + t / s.chunk_steps * s.batch * memory, memory);
      }
      if (s.weight[from_input] != nullptr) read_input(t);
      if constexpr (Pointwise::kHasMemory) update_memory(t);
      if constexpr (bf16) convert_sources();
      if (s.rounds) round_sources();
      constexpr int first_gate = Pointwise::kResetBefore ? 1 : 0;
      if constexpr (Pointwise::kResetBefore) {
        for (int64_t first_unit = 0; first_unit < s.hidden; first_unit += kPanel<T>) {
          sum_gates(unit, first_unit, 0, first_gate);
          reset_hidden(first_unit);
        }
        if constexpr (bf16) Base::rows_to_bf16(reset_, s.hidden, bf16_sources_[from_memory]);
      }
      for (int64_t first_unit = 0; first_unit < s.hidden; first_unit += kPanel<T>) {
        sum_gates(unit, first_unit, first_gate, Pointwise::kGates);
        update_hidden(t, first_unit);
      }
      T* const previous = hidden_;
      hidden_ = next_;
      next_ = previous;
    }
    for (int64_t r = 0; r < rows; ++r) std::memset(output(r, longest), 0, (s.steps - longest) * s.output_width * sizeof(T));
    Base::store_rows(hidden_, s.hidden_after);
    if constexpr (Pointwise::kHasCarry) Base::store_rows(carry_, s.memory_after);
    if constexpr (Pointwise::kHasMemory) Base::scatter(memory_, memory, s.memory_after, memory);
    finish_streams();
  }

 private:
  T* output(int64_t row, int64_t t) const { return s.outputs + ((first + row) * s.steps + t) * s.output_width; }

  void read_input(int64_t t) {
    const int64_t channels = round_up(s.channels, width);
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int r = 0; r < blocks.rows(b); ++r) {
        const T* const from = Base::input(blocks.start(b) + r, t);
        T* const to = input_ + blocks.start(b) * channels + r * width;
        for (int64_t k = 0; k < s.channels; k += width)
          store<T>(to + k * blocks.rows(b), load_partial<T>(from + k, s.channels - k));
        if (t + 1 < s.steps) prefetch(Base::input(blocks.start(b) + r, t + 1), s.channels);
      }
    }
  }

  // Memory input u = act(W_ux x + W_uh h + <W_um, m> + b_u), and the step of the memory.
  void update_memory(int64_t t) {
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int64_t m = 0; m < s.memories; ++m) {
        Vector<T> u = broadcast<T>(s.bias_u == nullptr ? T(0) : s.bias_u[m]);
        for (int r = 0; r < blocks.rows(b); ++r) {
          if (s.weight_ux != nullptr) {
            u[r] += dot<T>(s.weight_ux + m * s.channels, Base::input(blocks.start(b) + r, t), s.channels);
          }
          if (s.weight_uh != nullptr) {
            Vector<T> products{};
            for (int64_t k = 0; k < padded; k += width) {
              products += load<T>(hidden_ + offset(b, r, k)) * load<T>(weight_uh_ + m * padded + k);
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
        store<T>(memory_input + (b * s.memories + m) * width, u);
        if (s.saved == nullptr) continue;
        T* const saved = s.memory_inputs + (t * s.batch + first + blocks.start(b)) * s.memories + m;
        for (int r = 0; r < blocks.rows(b); ++r) saved[r * s.memories] = u[r];
      }
    }
    Base::memory_update.prepare(t);
    Base::memory_update.update(t, memory_, memory_, memory * width, memory_input, valid);
    if (s.output_width == s.hidden) return;
    for (int64_t b = 0; b < blocks.count; ++b) {
      T* const to = output(blocks.start(b), t) + s.hidden;
      lanes_to_rows<T>(memory_ + b * memory * width, blocks.rows(b), memory, to, s.steps * s.output_width);
      for (int r = 0; r < blocks.rows(b); ++r) {
        if (!valid[b][r]) std::memset(to + r * s.steps * s.output_width, 0, memory * sizeof(T));
      }
    }
  }

  int64_t bf16_depth(int source) const { return uses_bf16<T, bf16>(s, source) ? depth<T, Pointwise>(s, Source(source)) : 0; }

  // Converts the operands of the bfloat16 products.
  void convert_sources() {
    if (Pointwise::kHasMemory && bf16_depth(from_memory) > 0) {
      Base::lanes_to_bf16(memory_, memory, bf16_sources_[from_memory]);
    }
    if (bf16_depth(from_hidden) > 0) Base::rows_to_bf16(hidden_, s.hidden, bf16_sources_[from_hidden]);
    if (bf16_depth(from_input) > 0) Base::rows_to_bf16(input_, s.channels, bf16_sources_[from_input]);
  }

  bool rounds_memory() const { return Pointwise::kHasMemory && rounds_source<T>(s, from_memory); }

  // Rounds the operands of products in float32; the input and r h are nothing else and rounded in place.
  void round_sources() {
    const auto copy = [&](const T* from, int64_t numbers, T* to) {
      for (int64_t k = 0; k < numbers; k += width) store<T>(to + k, as_operand<T>(load<T>(from + k), true));
    };
    if (rounds_memory()) copy(memory_, blocks.count * memory * width, rounded_memory_);
    if (rounds_source<T>(s, from_hidden)) copy(hidden_, rows * padded, rounded_hidden_);
    round_operands<T>(input_, rows * round_up(s.channels, width), rounds_source<T>(s, from_input));
  }

  // The source of a product in float32.
  T* source_data(int source) const {
    if (source == from_input) return input_;
    if (source == from_hidden) return s.rounds ? rounded_hidden_ : hidden_;
    if (Pointwise::kResetBefore) return reset_;
    return s.rounds ? rounded_memory_ : memory_;
  }

  // Sums of the gates of a panel.
  T* sums(int64_t first_unit) const {
    const int64_t panel = Pointwise::kResetBefore ? first_unit / kPanel<T> : 0;
    return sums_ + panel * Pointwise::kGates * blocks.sum_rows() * kPanel<T>;
  }

  // r, in place of its sum, and r h, for 2W hidden units from `first_unit` on.
  void reset_hidden(int64_t first_unit) {
    const int64_t end = first_unit + kPanel<T> < padded ? first_unit + kPanel<T> : padded;
    T* const sums_of_r = sums(first_unit);
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int r = 0; r < blocks.rows(b); ++r) {
        T* const row = sums_of_r + (blocks.sum_row(b) + r) * kPanel<T>;
        for (int64_t u = first_unit; u < end; u += width) {
          const Vector<T> gate = sigmoid<T>(load<T>(row + u - first_unit));
          store<T>(row + u - first_unit, gate);
          store<T>(reset_ + offset(b, r, u), as_operand<T>(gate * load<T>(hidden_ + offset(b, r, u)), s.rounds));
        }
      }
    }
  }

  // Sums of gates [begin, end) for 2W hidden units from `first_unit` on.
  void sum_gates(const typename Base::Unit& unit, int64_t first_unit, int begin, int end) {
    const int64_t panel = first_unit / kPanel<T>;
    const T* w = s.packed + panel_offset<T, Pointwise, bf16>(s, false, panel) +
                 panel_rows<T, Pointwise, bf16>(s, begin) * kPanel<T>;
    for (int gate = begin; gate < end; ++gate) {
      T* const sums = this->sums(first_unit) + gate * blocks.sum_rows() * kPanel<T>;
      const T* const bias = w;
      w += kPanel<T>;
      Operand<T> operands[kSources];
      int count = 0;
      const T* weights = w;
      for (int source = 0; source < kSources; ++source) {
        const int64_t numbers = Pointwise::uses(gate, Source(source)) ? depth<T, Pointwise>(s, Source(source)) : 0;
        if (numbers == 0) continue;
        // Weights of bfloat16 sources precede those of the input, the only source that may stay float32.
        if (uses_bf16<T, bf16>(s, source)) weights += packed_rows<T, Pointwise, bf16>(s, source) * kPanel<T>;
        if (!uses_bf16<T, bf16>(s, source)) {
          const bool by_lanes = source == from_memory && !Pointwise::kResetBefore;
          operands[count++] = {source_data(source), by_lanes ? Layout::by_lanes : Layout::by_rows, numbers};
        }
      }
      multiply<T>(blocks, operands, count, bf16 ? kPanel<T> : s.hidden - first_unit, weights, bias, sums);
      for (int source = 0; source < kSources; ++source) {
        if (!Pointwise::uses(gate, Source(source))) continue;
        if constexpr (bf16) {
          const int64_t groups = tile_groups(bf16_depth(source));
          Base::template multiply_bf16<false>(unit, bf16_sources_[source], groups, 0, groups, w, sums);
        }
        w += packed_rows<T, Pointwise, bf16>(s, source) * kPanel<T>;
      }
    }
  }

  // Data of W hidden units of a row.
  struct UnitPointers {
    const T *sums, *hidden;
    T *next, *carry, *out, *saved;
    int64_t remaining;  // units from here on
  };

  void update_hidden(int64_t t, int64_t unit) {
    // Local copies, because a vector store may alias anything that is read through a pointer.
    const Sequence<T> sequence = s;
    const int64_t saved_stride = Base::saved_stride;
    const int64_t end = unit + kPanel<T> < padded ? unit + kPanel<T> : padded;
    const bool stream_saved = kCanStream && sequence.streams;
    const bool stream_outputs = stream_saved && sequence.output_width % width == 0 && sequence.hidden % width == 0;
    const StoreOptions options{saved_stride, blocks.sum_rows() * kPanel<T>, stream_saved, stream_outputs};
    const T* const panel_sums = sums(unit);
    UnitPointers pending[kInterleaved];
    int count = 0;
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int r = 0; r < blocks.rows(b); ++r) {
        const int64_t row = blocks.start(b) + r, sum_row = blocks.sum_row(b) + r;
        T* const out = output(row, t);
        T* const saved = sequence.saved + (t * sequence.batch + first + row) * Pointwise::kSaved * saved_stride;
        const bool is_valid = valid[b][r];
        // The outputs of the next step are in a distant cache line.
        if (!stream_outputs) prefetch(out + sequence.output_width + unit, end - unit);
        for (int64_t u = unit; u < end; u += width) {
          const int64_t at = offset(b, r, u), remaining = sequence.hidden - u;
          if (!is_valid) {
            store<T>(next_ + at, load<T>(hidden_ + at));
            store_partial<T>(out + u, Vector<T>{}, remaining);
            continue;
          }
          pending[count++] = {panel_sums + sum_row * kPanel<T> + u - unit,     hidden_ + at, next_ + at, carry_ + at, out + u,
                              sequence.saved == nullptr ? nullptr : saved + u, remaining};
          if (count == kInterleaved) {
            step<kInterleaved>(sequence, options, pending);
            count = 0;
          }
        }
      }
    }
    for (int i = 0; i < count; ++i) step<1>(sequence, options, pending + i);
  }

  struct StoreOptions {
    int64_t saved_stride, gate_stride;
    bool stream_saved, stream_outputs;
  };

  template <int n>
  SEQMEM_INLINE void step(const Sequence<T>& sequence, const StoreOptions& options, const UnitPointers* at) {
    UnitState<T, Pointwise> units[n];
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) {
#pragma GCC unroll 8
      for (int gate = 0; gate < Pointwise::kGates; ++gate) units[j].z[gate] = load<T>(at[j].sums + gate * options.gate_stride);
      units[j].h = load<T>(at[j].hidden);
      units[j].c = Vector<T>{};
      if constexpr (Pointwise::kHasCarry) units[j].c = load<T>(at[j].carry);
    }
    Pointwise::forward(sequence, units);
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) {
      if constexpr (Pointwise::kHasCarry) store<T>(at[j].carry, units[j].c);
      store<T>(at[j].next, units[j].h);
      if (options.stream_outputs) {
        stream<T>(at[j].out, units[j].h);
      } else {
        store_partial<T>(at[j].out, units[j].h, at[j].remaining);
      }
      if (at[j].saved == nullptr) continue;
#pragma GCC unroll 8
      for (int k = 0; k < Pointwise::kSaved; ++k) {
        if (options.stream_saved) {
          stream<T>(at[j].saved + k * options.saved_stride, units[j].saved[k]);
        } else {
          store<T>(at[j].saved + k * options.saved_stride, units[j].saved[k]);
        }
      }
    }
  }

  T* const input_;
  T* hidden_;  // layout by rows, as the next two
  T* next_;
  T* const carry_;
  T* const memory_;  // by lanes
  T* const reset_;   // r h, by rows
  T* const sums_;    // (gates, rows of sums, 2W); with kResetBefore of every panel
  T* const weight_uh_;
  T* bf16_sources_[kSources];  // operands of the bfloat16 products
  T* rounded_memory_;          // operands of products in float32 that are rounded to bfloat16
  T* rounded_hidden_;
};

}  // namespace seqmem::SEQMEM_ISA
