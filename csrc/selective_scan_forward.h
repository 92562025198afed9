// Forward loop of a selective scan.
#pragma once

#include "selective_scan_task.h"

namespace seqmem::SEQMEM_ISA {

template <typename T>
class SelectiveScanForward : SelectiveScanTask<T> {
  using Base = SelectiveScanTask<T>;
  using Base::contracted, Base::first_channel, Base::inputs, Base::length, Base::padded, Base::row, Base::s, Base::states,
      Base::step_sizes, Base::width;

 public:
  SelectiveScanForward(const SelectiveScan<T>& scan, int64_t row, int64_t group, Arena<T>& arena)
      : Base(scan, row, group, arena) {}

  void run() {
    Base::load_states(s.initial, states);
    for (int64_t chunk = 0; chunk < s.chunks(); ++chunk) {
      const int64_t first_step = chunk * s.chunk_steps, rest = length - first_step;
      const int64_t count = rest < 0 ? 0 : rest < s.chunk_steps ? rest : s.chunk_steps;
      load_chunk(first_step, count);
      Base::for_each_vector([&](int64_t channel, int64_t, int64_t vector) {
        T* const own = states + vector * padded * width;
        if (s.saved != nullptr) save(own, Base::saved(chunk, channel));
        for (int64_t n = 0; n < padded; n += kStateBlock) {
          const int64_t next = first_step + s.chunk_steps;
          const auto ahead = n == 0 ? Base::ahead(s.gate, first_step, channel)
                                    : Base::ahead(n == kStateBlock ? s.inputs : s.delta, next, channel);
          Base::template run_block<false>(vector, channel, n, count, own + n * width, nullptr, nullptr, ahead);
        }
      });
      store_chunk(first_step, count);
    }
    for (int64_t t = length; t < s.steps; ++t) {
      std::memset(s.outputs + (row * s.steps + t) * s.channels + first_channel, 0, Base::channel_count() * sizeof(T));
    }
    Base::store_states(states, s.final);
    finish_streams();
  }

 private:
  void save(const T* from, T* to) const {
    for (int64_t n = 0; n < padded; ++n) store<T>(to + n * s.padded_channels(), load<T>(from + n * width));
  }

  void load_chunk(int64_t first_step, int64_t count) {
    Base::load_chunk(first_step, count);
    for (int64_t t = 0; t < count; ++t) {
      const T* const from = s.inputs.at(row, first_step + t);
      Base::for_each_vector([&](int64_t channel, int64_t lanes, int64_t vector) {
        const int64_t at = Base::place(vector, t);
        Vector<T> derivative;
        store<T>(inputs + at, load_partial<T>(from + channel, lanes));
        store<T>(step_sizes + at, Base::step_size(first_step + t, channel, lanes, derivative));
        store<T>(contracted + at, Vector<T>{});
      });
    }
  }

  void store_chunk(int64_t first_step, int64_t count) const {
    for (int64_t t = 0; t < count; ++t) {
      T* const to = s.outputs + (row * s.steps + first_step + t) * s.channels;
      const T* const gate = s.gate.data == nullptr ? nullptr : s.gate.at(row, first_step + t);
      Base::for_each_vector([&](int64_t channel, int64_t lanes, int64_t vector) {
        const int64_t at = Base::place(vector, t);
        Vector<T> y = load<T>(contracted + at) + load<T>(s.skip + channel) * load<T>(inputs + at);
        if (gate != nullptr) {
          const Vector<T> z = load_partial<T>(gate + channel, lanes);
          y = y * (z * sigmoid<T>(z));
        }
        Base::store_result(to + channel, y, lanes);
      });
    }
  }
};

}  // namespace seqmem::SEQMEM_ISA
