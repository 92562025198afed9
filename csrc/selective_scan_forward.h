// Forward loop of a selective scan.
#pragma once

#include "selective_scan_task.h"

namespace seqmem::SEQMEM_ISA {

template <typename T>
class SelectiveScanForward : SelectiveScanTask<T> {
  using Base = SelectiveScanTask<T>;
  using typename Base::Chunk, typename Base::Strip;
  using Base::first_channel, Base::length, Base::padded, Base::row, Base::s, Base::states, Base::width;

 public:
  SelectiveScanForward(const SelectiveScan<T>& scan, int64_t row, int64_t group, Arena<T>& arena)
      : Base(scan, row, group, arena) {}

  void run() {
    Base::load_states(s.initial, states);
    for (int64_t index = 0; index < s.chunks(); ++index) {
      const Chunk chunk = Base::chunk_at(index);
      Base::load_chunk(chunk, index + 1);
      Base::for_each_strip([&](auto vectors, const Strip& strip) { run_strip<vectors.value>(chunk, strip); });
    }
    for (int64_t t = length; t < s.steps; ++t) {
      std::memset(s.outputs + (row * s.steps + t) * s.channels + first_channel, 0, Base::channel_count() * sizeof(T));
    }
    Base::store_states(states, s.final);
    finish_streams();
  }

 private:
  template <int vectors>
  void run_strip(const Chunk& chunk, const Strip& strip) {
    T* const own = states + strip.vector * padded * width;
    if (s.saved != nullptr) {
      for (int v = 0; v < vectors; ++v) save(own + v * padded * width, Base::saved(chunk.index, strip.channel + v * width));
    }
    Base::template for_each_span<vectors>(chunk, strip, [&](auto span) { this->template load_steps<false>(span); });
    const Steps<T>* const read[] = {&s.inputs, &s.delta, &s.gate};
    for (int64_t n = 0; n < padded; n += kStateBlock) {
      const int64_t index = n / kStateBlock;
      const auto ahead = Base::template ahead<vectors>(index < 3 ? read[index] : nullptr, chunk, strip, chunk.index + 1);
      typename Base::template Block<vectors> h;
      h.load_from(own + n * width, padded * width, width);
      h = Base::template run_block<vectors, false>(h, chunk.count, strip, n, ahead, nullptr);
      h.store_to(own + n * width, padded * width, width);
    }
    Base::template for_each_span<vectors>(chunk, strip, [&](auto span) { store_steps(span); });
  }

  void save(const T* from, T* to) const {
    for (int64_t n = 0; n < padded; ++n, from += width, to += s.padded_channels()) {
      if (kCanStream && s.streams) {
        stream<T>(to, load<T>(from));
      } else {
        store<T>(to, load<T>(from));
      }
    }
  }

  template <typename Span>
  inline __attribute__((always_inline)) void store_steps(Span span) const {
    Vector<T> y[Span::size], z[Span::size], opened[Span::size];
    Base::load_field(Base::contracted, span, y);
    if (s.gate.data != nullptr) {
      Base::load_span(s.gate, span, z);
      opening<T, Span::size>(z, opened);
#pragma GCC unroll 8
      for (int k = 0; k < Span::size; ++k) y[k] = y[k] * (z[k] * opened[k]);
    }
    Base::store_span(s.outputs, span, y);
  }
};

}  // namespace seqmem::SEQMEM_ISA
