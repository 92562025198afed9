// Forward loop of an sLSTM: runs some rows of a head through all steps.
#pragma once

#include "slstm_group.h"

namespace seqmem::SEQMEM_ISA {

template <typename T>
class SlstmForward : SlstmGroup<T> {
  static constexpr int kInterleaved = 2;  // vectors of units

  using Base = SlstmGroup<T>;
  using Base::blocks, Base::offset, Base::padded, Base::rows, Base::s, Base::width, Base::zeros;

 public:
  SlstmForward(const Slstm<T>& sequence, int64_t head, int64_t first_row, int64_t count, Arena<T>& arena)
      : Base(sequence, head, first_row, count, arena), next_(arena.allocate(count * padded)),
        sums_(arena.allocate(kSlstmGates * count * kPanel<T>)) {
    for (T*& part : state_) part = arena.allocate(count * padded);
  }

  void run() {
    std::memset(zeros, 0, kPanel<T> * sizeof(T));
    for (int part = 0; part < kSlstmParts; ++part) Base::load_rows(s.before[part], state_[part]);
    const int64_t longest = Base::longest();
    for (int64_t t = 0; t < longest; ++t) {
      if (s.saved != nullptr && t % kSlstmInterval == 0) save_memory(t);
      const Operand<T> hidden{state_[slstm_hidden], Layout::by_rows, s.size};
      for (int64_t unit = 0; unit < s.size; unit += kPanel<T>) {
        for (int gate = 0; gate < kSlstmGates; ++gate) {
          const T* const w = Base::packed_panel(unit) + gate * s.size * kPanel<T>;
          multiply<T>(blocks, &hidden, 1, s.size - unit, w, zeros, sums_ + gate * rows * kPanel<T>);
        }
        update(t, unit);
      }
      T* const previous = state_[slstm_hidden];
      state_[slstm_hidden] = next_;
      next_ = previous;
    }
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t t = longest; t < s.steps; ++t) std::memset(s.outputs + Base::of_step(r, t), 0, s.size * sizeof(T));
    }
    for (int part = 0; part < kSlstmParts; ++part) Base::store_rows(state_[part], s.after[part]);
    finish_streams();
  }

 private:
  // Data of W units of a row.
  struct Pointers {
    const T *sums, *projected;
    int64_t at;  // in the state
    T *out, *saved;
    int64_t remaining;  // units from here on
  };

  void save_memory(int64_t t) const {
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int r = 0; r < blocks.rows(b); ++r) {
        T* const to = Base::checkpoint(blocks.start(b) + r, t);
        for (int64_t u = 0; u < padded; u += width) {
          store<T>(to + u, load<T>(state_[slstm_memory] + offset(b, r, u)));
          store<T>(to + s.saved_stride() + u, load<T>(state_[slstm_normalizer] + offset(b, r, u)));
        }
      }
    }
  }

  // A panel of units from `unit` on.
  void update(int64_t t, int64_t unit) {
    const int64_t end = unit + kPanel<T> < padded ? unit + kPanel<T> : padded;
    const bool has_next = t + 1 < s.steps;
    Pointers pending[kInterleaved];
    int count = 0;
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int r = 0; r < blocks.rows(b); ++r) {
        const int64_t row = blocks.start(b) + r;
        T* const out = s.outputs + Base::of_step(row, t);
        const T* const projected = s.projected + Base::of_gates(row, t);
        const bool is_valid = Base::is_valid(row, t);
        for (int64_t u = unit; u < end; u += width) {
          const int64_t at = offset(b, r, u);
          if (!is_valid) {
            store<T>(next_ + at, load<T>(state_[slstm_hidden] + at));
            store_partial<T>(out + u, Vector<T>{}, s.size - u);
            continue;
          }
          for (int gate = 0; has_next && gate < kSlstmGates; ++gate) {
            __builtin_prefetch(projected + (kSlstmGates + gate) * s.units() + u);
          }
          T* const saved = s.saved == nullptr ? nullptr : Base::saved(row, t) + u;
          pending[count++] = {sums_ + row * kPanel<T> + u - unit, projected + u, at, out + u, saved, s.size - u};
          if (count == kInterleaved) {
            step<kInterleaved>(pending);
            count = 0;
          }
        }
      }
    }
    for (int i = 0; i < count; ++i) step<1>(pending + i);
  }

  template <int n>
  inline __attribute__((always_inline)) void load_units(
      const Pointers* at, T* const* state, SlstmUnits<T> (&units)[n]) const {
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) {
#pragma GCC unroll 8
      for (int gate = 0; gate < kSlstmGates; ++gate) {
        units[j].gates[gate] = load<T>(at[j].sums + gate * rows * kPanel<T>) +
                               load_partial<T>(at[j].projected + gate * s.units(), at[j].remaining);
      }
      units[j].c = load<T>(state[slstm_memory] + at[j].at);
      units[j].n = load<T>(state[slstm_normalizer] + at[j].at);
      units[j].m = load<T>(state[slstm_stabilizer] + at[j].at);
    }
  }

  template <int n>
  inline __attribute__((always_inline)) void step(const Pointers* at) {
    // Local copies, because a vector store may alias anything that is read through a pointer.
    const int64_t saved_stride = s.saved_stride();
    const bool streams = kCanStream && s.streams, streams_outputs = streams && s.size % width == 0;
    T* const state[] = {next_, state_[slstm_memory], state_[slstm_normalizer], state_[slstm_stabilizer]};
    SlstmUnits<T> units[n];
    load_units<n>(at, state, units);
    slstm_forward_units<T, n>(units);
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) {
      const Vector<T> after[] = {units[j].y, units[j].c, units[j].n, units[j].m};
#pragma GCC unroll 8
      for (int part = 0; part < kSlstmParts; ++part) store<T>(state[part] + at[j].at, after[part]);
      store_units<T>(at[j].out, units[j].y, at[j].remaining, streams_outputs);
      if (at[j].saved == nullptr) continue;
#pragma GCC unroll 8
      for (int k = 0; k < kSlstmSaved; ++k) store_units<T>(at[j].saved + k * saved_stride, units[j].saved[k], width, streams);
    }
  }

  T* state_[kSlstmParts];  // by rows, as the next
  T* next_;                // y after the step
  T* const sums_;          // of the gates of a panel, (4, rows, 2W)
};

}  // namespace seqmem::SEQMEM_ISA
