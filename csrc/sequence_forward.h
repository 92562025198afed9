// The way forward: a group of rows goes through all steps.
#pragma once

#include <cstdint>
#include <cstring>

#include "sequence_group.h"
#include "sequence_pack.h"

namespace seqmem::SEQMEM_ISA {

template <typename T, typename Rule, bool half>
class Forward : Group<T, Rule, half> {
  // Vectors of hidden units that advance together: what one waits for, the others fill.
  static constexpr int kTogether = 2;

  using Base = Group<T, Rule, half>;
  using Base::at, Base::blocks, Base::first, Base::memory, Base::padded, Base::rows, Base::s, Base::stored, Base::valid,
      Base::width, Base::written;

 public:
  Forward(const Sequence<T>& sequence, int64_t first_row, int64_t count, Arena<T>& arena)
      : Base(sequence, first_row, count, arena), input_(arena.take(count * round_up(sequence.channels, width))),
        hidden_(arena.take(count * padded)), next_(arena.take(count * padded)),
        carry_(arena.take(Rule::kHasCarry ? count * padded : 0)), memory_(arena.take(blocks.count * memory * width)),
        sums_(arena.take(Rule::kGates * blocks.lines() * kPanel<T>)),
        weight_uh_(arena.take(Rule::kHasMemory ? sequence.memories * padded : 0)) {
    for (int source = 0; source < kSources; ++source) narrow_[source] = Base::take_narrow(arena, half_depth(source));
  }

  void run() {
    const typename Base::Unit unit(s.tiles);
    for (int source = 0; source < kSources; ++source) Base::clear(narrow_[source], half_depth(source));
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
      if constexpr (half) narrow();
      const int64_t size = panel_rows<T, Rule, half>(s) * kPanel<T>;
      for (int64_t first_unit = 0; first_unit < s.hidden; first_unit += kPanel<T>) {
        sum(unit, first_unit, s.packed + first_unit / kPanel<T> * size);
        advance(t, first_unit);
      }
      T* const read = hidden_;
      hidden_ = next_;
      next_ = read;
    }
    for (int64_t r = 0; r < rows; ++r) std::memset(output(r, longest), 0, (s.steps - longest) * s.output_width * sizeof(T));
    Base::give_rows(hidden_, s.hidden_after);
    if constexpr (Rule::kHasCarry) Base::give_rows(carry_, s.memory_after);
    if constexpr (Rule::kHasMemory) Base::scatter(memory_, memory, s.memory_after, memory);
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
        for (int64_t k = 0; k < s.channels; k += width) store<T>(to + k * blocks.rows(b), load_some<T>(from + k, s.channels - k));
        if (t + 1 < s.steps) prefetch(Base::input(blocks.start(b) + r, t + 1), s.channels);
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

  int64_t half_depth(int source) const { return is_half<T, half>(s, source) ? depth<T, Rule>(s, Source(source)) : 0; }

  // What the tiles read.
  void narrow() {
    if (half_depth(from_memory) > 0) Base::narrow_lanes(memory_, memory, narrow_[from_memory]);
    if (half_depth(from_hidden) > 0) Base::narrow_rows(hidden_, s.hidden, narrow_[from_hidden]);
    if (half_depth(from_input) > 0) Base::narrow_rows(input_, s.channels, narrow_[from_input]);
  }

  // The sums of all gates for 2W hidden units from `first_unit` on.
  void sum(const typename Base::Unit& unit, int64_t first_unit, const T* w) {
    for (int gate = 0; gate < Rule::kGates; ++gate) {
      T* const sums = sums_ + gate * blocks.lines() * kPanel<T>;
      const T* const bias = w;
      w += kPanel<T>;
      Operand<T> operands[kSources];
      int count = 0;
      const T* weights = w;
      for (int source = 0; source < kSources; ++source) {
        const int64_t numbers = Rule::reads(gate, Source(source)) ? depth<T, Rule>(s, Source(source)) : 0;
        if (numbers == 0) continue;
        // Those in bfloat16 come before the one that may not be.
        if (is_half<T, half>(s, source)) weights += packed_rows<T, Rule, half>(s, source) * kPanel<T>;
        T* const data = source == from_memory ? memory_ : source == from_hidden ? hidden_ : input_;
        if (!is_half<T, half>(s, source)) {
          operands[count++] = {data, source == from_memory ? Order::by_lanes : Order::by_rows, numbers};
        }
      }
      multiply<T>(blocks, operands, count, half ? kPanel<T> : s.hidden - first_unit, weights, bias, sums);
      for (int source = 0; source < kSources; ++source) {
        if (!Rule::reads(gate, Source(source))) continue;
        if constexpr (half) {
          const int64_t groups = tile_groups(half_depth(source));
          Base::template multiply_narrow<false>(unit, narrow_[source], groups, 0, groups, w, sums);
        }
        w += packed_rows<T, Rule, half>(s, source) * kPanel<T>;
      }
    }
  }

  // W hidden units of a row, and where what is known of them lies.
  struct Place {
    const T *sums, *hidden;
    T *next, *carry, *out, *keep;
    int64_t left;  // units from here on
  };

  void advance(int64_t t, int64_t unit) {
    // Copies, as a vector store may alias whatever is read through a pointer.
    const Sequence<T> sequence = s;
    const int64_t kept_stride = stored;
    const int64_t end = unit + kPanel<T> < padded ? unit + kPanel<T> : padded;
    const bool stream_saved = kCanStream && sequence.streams;
    const bool stream_outputs = stream_saved && sequence.output_width % width == 0 && sequence.hidden % width == 0;
    const Storing storing{kept_stride, blocks.lines() * kPanel<T>, stream_saved, stream_outputs};
    Place waiting[kTogether];
    int count = 0;
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int r = 0; r < blocks.rows(b); ++r) {
        const int64_t row = blocks.start(b) + r, line = blocks.line(b) + r;
        T* const out = output(row, t);
        T* const keep = sequence.saved + (t * sequence.batch + first + row) * Rule::kSaved * kept_stride;
        const bool is_valid = valid[b][r];
        // Where the next step will write, in a line that no other row is near.
        if (!stream_outputs) prefetch(out + sequence.output_width + unit, end - unit);
        for (int64_t u = unit; u < end; u += width) {
          const int64_t place = at(b, r, u), left = sequence.hidden - u;
          if (!is_valid) {
            store<T>(next_ + place, load<T>(hidden_ + place));
            store_some<T>(out + u, Vector<T>{}, left);
            continue;
          }
          waiting[count++] = {
              sums_ + line * kPanel<T> + u - unit, hidden_ + place, next_ + place, carry_ + place, out + u,
              sequence.saved == nullptr ? nullptr : keep + u, left};
          if (count == kTogether) {
            step<kTogether>(sequence, storing, waiting);
            count = 0;
          }
        }
      }
    }
    for (int i = 0; i < count; ++i) step<1>(sequence, storing, waiting + i);
  }

  struct Storing {
    int64_t kept_stride, gate_stride;
    bool stream_saved, stream_outputs;
  };

  template <int n>
  SEQMEM_INLINE void step(const Sequence<T>& sequence, const Storing& storing, const Place* places) {
    Units<T, Rule> units[n];
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) {
#pragma GCC unroll 8
      for (int gate = 0; gate < Rule::kGates; ++gate) units[j].z[gate] = load<T>(places[j].sums + gate * storing.gate_stride);
      units[j].h = load<T>(places[j].hidden);
      units[j].c = Vector<T>{};
      if constexpr (Rule::kHasCarry) units[j].c = load<T>(places[j].carry);
    }
    Rule::forward(sequence, units);
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) {
      if constexpr (Rule::kHasCarry) store<T>(places[j].carry, units[j].c);
      store<T>(places[j].next, units[j].h);
      if (storing.stream_outputs) {
        stream<T>(places[j].out, units[j].h);
      } else {
        store_some<T>(places[j].out, units[j].h, places[j].left);
      }
      if (places[j].keep == nullptr) continue;
#pragma GCC unroll 8
      for (int k = 0; k < Rule::kSaved; ++k) {
        if (storing.stream_saved) {
          stream<T>(places[j].keep + k * storing.kept_stride, units[j].saved[k]);
        } else {
          store<T>(places[j].keep + k * storing.kept_stride, units[j].saved[k]);
        }
      }
    }
  }

  T* const input_;
  T* hidden_;  // by rows, as the next two
  T* next_;
  T* const carry_;
  T* const memory_;  // by lanes
  T* const sums_;    // (gates, lines, 2W)
  T* const weight_uh_;
  T* narrow_[kSources];  // what the products in bfloat16 read
};

}  // namespace seqmem::SEQMEM_ISA
