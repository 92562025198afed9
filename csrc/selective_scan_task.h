// Base of the forward and the backward loop of a selective scan: the rows of a chunk, and the loop over its steps.
#pragma once

#include <cstdint>
#include <cstring>

#include "selective_scan.h"
#include "selective_scan_math.h"
#include "sequence_rows.h"
#include "vector.h"

namespace seqmem::SEQMEM_ISA {

// One batch row and one group of channels. A vector holds W neighbouring channels; lanes beyond the last channel hold zeros.
// Arrays of a chunk are (vectors, steps of a chunk, W): they are filled step by step, as the tensors lie in memory, and read
// vector by vector.
template <typename T>
class SelectiveScanTask {
 protected:
  static constexpr int width = kLanes<T>;

  SelectiveScanTask(const SelectiveScan<T>& scan, int64_t row, int64_t group, Arena<T>& arena)
      : s(scan), row(row), first_channel(group * kGroupChannels), padded(scan.padded_states()), length(scan.length(row)),
        chunk_size(scan.chunk_steps * kGroupChannels), states(arena.allocate(kGroupChannels * padded)),
        inputs(arena.allocate(chunk_size)), step_sizes(arena.allocate(chunk_size)), contracted(arena.allocate(chunk_size)),
        b(arena.allocate(scan.chunk_steps * padded)), c(arena.allocate(scan.chunk_steps * padded)) {}

  int64_t end_channel() const {
    return s.channels < first_channel + kGroupChannels ? s.channels : first_channel + kGroupChannels;
  }
  int64_t channel_count() const { return end_channel() - first_channel; }

  // Calls function(first channel, number of channels, vector) for each vector of the group.
  template <typename Function>
  void for_each_vector(const Function& function) const {
    int64_t channel = first_channel, vector = 0;
    for (; channel + width <= end_channel(); channel += width) function(channel, int64_t(width), vector++);
    if (channel < end_channel()) function(channel, end_channel() - channel, vector);
  }

  // Place of a step of a vector in an array of a chunk.
  int64_t place(int64_t vector, int64_t t) const { return (vector * s.chunk_steps + t) * width; }

  // Converts a row of (B, D, N) to the states of the group, (vectors, padded states, W); zeros if `from` is null.
  void load_states(const T* from, T* to) const {
    std::memset(to, 0, kGroupChannels * padded * sizeof(T));
    for (int64_t d = 0; from != nullptr && d < channel_count(); ++d) {
      const T* const state = from + (row * s.channels + first_channel + d) * s.states;
      for (int64_t n = 0; n < s.states; ++n) to[(d / width * padded + n) * width + d % width] = state[n];
    }
  }

  void store_states(const T* from, T* to) const {
    for (int64_t d = 0; d < channel_count(); ++d) {
      T* const state = to + (row * s.channels + first_channel + d) * s.states;
      for (int64_t n = 0; n < s.states; ++n) state[n] = from[(d / width * padded + n) * width + d % width];
    }
  }

  // The states before a chunk of W channels: (padded states) vectors at a distance of the padded channels.
  T* saved(int64_t chunk, int64_t channel) const {
    return s.saved + (row * s.chunks() + chunk) * padded * s.padded_channels() + channel;
  }

  // b and c of a chunk, padded with zeros.
  void load_chunk(int64_t first_step, int64_t count) {
    for (int64_t t = 0; t < count; ++t) {
      const T *const b_row = s.b.at(row, first_step + t), *const c_row = s.c.at(row, first_step + t);
      for (int64_t n = 0; n < padded; ++n) {
        b[t * padded + n] = n < s.states ? b_row[n] : T(0);
        c[t * padded + n] = n < s.states ? c_row[n] : T(0);
      }
    }
  }

  // The step size of W channels, and its derivative with respect to delta.
  Vector<T> step_size(int64_t step, int64_t channel, int64_t lanes, Vector<T>& derivative) const {
    const Vector<T> delta = load_partial<T>(s.delta.at(row, step) + channel, lanes) + load<T>(s.delta_bias + channel);
    if (s.softplus) return softplus<T>(delta, derivative);
    derivative = broadcast<T>(T(1));
    return delta;
  }

  // Stores a vector of a result (B, T, D).
  void store_result(T* to, const Vector<T>& value, int64_t lanes) const {
    if (kCanStream && s.streams) {
      stream<T>(to, value);
    } else {
      store_partial<T>(to, value, lanes);
    }
  }

  // Rows that a loop over the steps of a chunk prefetches, one a step: they are read after the loops, too far apart in memory
  // for the hardware to foresee.
  struct Ahead {
    const T* from;
    int64_t stride;

    void prefetch(int64_t t) const { __builtin_prefetch(from + t * stride); }
  };

  // W channels of the rows from a step on; nothing new if the tensor is absent or has no such step.
  Ahead ahead(const Steps<T>& tensor, int64_t first_step, int64_t channel) const {
    if (tensor.data == nullptr || first_step < 0 || first_step + s.chunk_steps > s.steps) return {s.rates, 0};
    return {tensor.at(row, first_step) + channel, tensor.step_stride};
  }

  // Steps of a block of states of W channels: h = 2^(d rate) h + d u b, and contracted += c h. With `keep` stores the factors
  // (count, block, W), and the states after each step.
  template <bool keep>
  void run_block(
      int64_t vector, int64_t channel, int64_t first_state, int64_t count, T* block_states, T* factors, T* after,
      const Ahead& ahead) const {
    const T* const rates = s.rates + channel + first_state * s.padded_channels();
    Vector<T> h[kStateBlock], rate[kStateBlock];
#pragma GCC unroll 8
    for (int j = 0; j < kStateBlock; ++j) {
      h[j] = load<T>(block_states + j * width);
      rate[j] = load<T>(rates + j * s.padded_channels());
    }
    for (int64_t t = 0; t < count; ++t) {
      const int64_t at = place(vector, t);
      ahead.prefetch(t);
      const Vector<T> d = load<T>(step_sizes + at), driven = d * load<T>(inputs + at);
      const T *const b_t = b + t * padded + first_state, *const c_t = c + t * padded + first_state;
      Vector<T> factor[kStateBlock], sum = load<T>(contracted + at);
#pragma GCC unroll 8
      for (int j = 0; j < kStateBlock; ++j) factor[j] = d * rate[j];
      power_of_two<T, kStateBlock>(factor);
#pragma GCC unroll 8
      for (int j = 0; j < kStateBlock; ++j) {
        h[j] = factor[j] * h[j] + driven * b_t[j];
        sum += h[j] * c_t[j];
        if constexpr (keep) {
          store<T>(factors + (t * kStateBlock + j) * width, factor[j]);
          store<T>(after + (t * kStateBlock + j) * width, h[j]);
        }
      }
      store<T>(contracted + at, sum);
    }
#pragma GCC unroll 8
    for (int j = 0; j < kStateBlock; ++j) store<T>(block_states + j * width, h[j]);
  }

  const SelectiveScan<T>& s;
  const int64_t row, first_channel, padded, length, chunk_size;
  T* const states;  // (vectors, padded states, W)
  T* const inputs;  // arrays of a chunk
  T* const step_sizes;
  T* const contracted;
  T* const b;  // (steps of a chunk, padded states)
  T* const c;
};

}  // namespace seqmem::SEQMEM_ISA
