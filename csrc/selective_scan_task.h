// Base of the forward and the backward loop of a selective scan: chunks of steps, strips of channels, and a block of states.
#pragma once

#include <cstdint>
#include <cstring>

#include "selective_scan.h"
#include "selective_scan_math.h"
#include "sequence_rows.h"
#include "vector.h"

namespace seqmem::SEQMEM_ISA {

// One batch row and one group of channels. A vector holds W neighbouring channels; lanes beyond the last channel hold zeros.
// Strips of neighbouring vectors run together through the steps of a chunk, one block of states after the other.
template <typename T>
class SelectiveScanTask {
 protected:
  static constexpr int width = kLanes<T>;
  static constexpr int strip_vectors = SEQMEM_VECTOR_BYTES == 64 ? 2 : 1;  // as many as the registers hold

  // Values of a row for a step of a strip, (strip vectors, W) each. Forward uses the first three only.
  enum Field { step_sizes, driven, contracted, grad_contracted, grad_driven, grad_steps, step_slopes, gate_slopes, fields };
  // One vector more, so that rows do not share sets of the cache.
  static constexpr int row_size = (fields * strip_vectors + 1) * width;
  // Of the factors of a step and the states before it, (strip vectors, 2, block, W).
  static constexpr int kept_size = (2 * strip_vectors * kStateBlock + 1) * width;

  SelectiveScanTask(const SelectiveScan<T>& scan, int64_t row, int64_t group, Arena<T>& arena)
      : s(scan), row(row), first_channel(group * scan.group_channels), padded(scan.padded_states()), length(scan.length(row)),
        states(arena.allocate(scan.group_channels * padded)), rows(arena.allocate(scan.chunk_steps * row_size)),
        b(arena.allocate(scan.chunk_steps * padded)), c(arena.allocate(scan.chunk_steps * padded)) {}

  struct Chunk {
    int64_t index, first_step, count;
  };

  // Neighbouring vectors. All lanes of several are channels.
  struct Strip {
    int64_t vector, channel, lanes;
  };

  Chunk chunk_at(int64_t index) const {
    const int64_t first_step = index * s.chunk_steps, rest = length - first_step;
    return {index, first_step, rest < 0 ? 0 : rest < s.chunk_steps ? rest : s.chunk_steps};
  }

  int64_t end_channel() const {
    return s.channels < first_channel + s.group_channels ? s.channels : first_channel + s.group_channels;
  }
  int64_t channel_count() const { return end_channel() - first_channel; }

  template <int vectors>
  struct Count {
    static constexpr int value = vectors;
  };

  // Calls function(Count<vectors>, strip) for each strip of the group.
  template <typename Function>
  void for_each_strip(const Function& function) const {
    int64_t vector = 0, channel = first_channel;
    for (; channel + strip_vectors * width <= end_channel(); vector += strip_vectors, channel += strip_vectors * width) {
      function(Count<strip_vectors>(), Strip{vector, channel, width});
    }
    for (; channel < end_channel(); ++vector, channel += width) {
      const int64_t rest = end_channel() - channel;
      function(Count<1>(), Strip{vector, channel, rest < width ? rest : int64_t(width)});
    }
  }

  // Converts a row of (B, D, N) to the states of the group, (vectors, padded states, W); zeros if `from` is null.
  void load_states(const T* from, T* to) const {
    std::memset(to, 0, s.group_channels * padded * sizeof(T));
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

  // Loads b and c of a chunk, padded with zeros, and prefetches those of the `next`.
  void load_chunk(const Chunk& chunk, int64_t next) const {
    const bool is_whole = next >= 0 && (next + 1) * s.chunk_steps <= s.steps;
    const int64_t next_step = is_whole ? next * s.chunk_steps : chunk.first_step;
    for (int64_t t = 0; t < chunk.count; ++t) {
      __builtin_prefetch(s.b.at(row, next_step + t), 0, 2);
      __builtin_prefetch(s.c.at(row, next_step + t), 0, 2);
      load_padded(s.b.at(row, chunk.first_step + t), b + t * padded);
      load_padded(s.c.at(row, chunk.first_step + t), c + t * padded);
    }
  }

  void load_padded(const T* from, T* to) const {
    int64_t n = 0;
    for (; n + kStateBlock <= s.states; n += kStateBlock) std::memcpy(to + n, from + n, kStateBlock * sizeof(T));
    for (; n < padded; ++n) to[n] = n < s.states ? from[n] : T(0);
  }

  // Some steps of a strip, whose functions of single numbers are computed together: (steps, vectors) vectors.
  template <int vectors, int steps>
  struct Span {
    static constexpr int size = vectors * steps;
    int64_t step, channel, lanes;
    T* rows;

    static constexpr int step_of(int k) { return k / vectors; }
    static constexpr int channel_of(int k) { return k % vectors * width; }
    T* at(Field field, int k) const { return rows + step_of(k) * row_size + field * strip_vectors * width + channel_of(k); }
  };

  // Calls function(span) for all steps of a strip in a chunk.
  template <int vectors, typename Function>
  inline __attribute__((always_inline)) void for_each_span(const Chunk& chunk, const Strip& strip, const Function& f) const {
    constexpr int steps = SEQMEM_VECTOR_BYTES == 64 ? 2 : 1;
    const int64_t lanes = vectors > 1 ? int64_t(width) : strip.lanes;
    int64_t t = 0;
    for (; t + steps <= chunk.count; t += steps) {
      f(Span<vectors, steps>{chunk.first_step + t, strip.channel, lanes, rows + t * row_size});
    }
    for (; t < chunk.count; ++t) f(Span<vectors, 1>{chunk.first_step + t, strip.channel, lanes, rows + t * row_size});
  }

  template <typename Span>
  inline __attribute__((always_inline)) void load_span(const Steps<T>& from, Span span, Vector<T> (&to)[Span::size]) const {
    const T* const first = from.at(row, span.step) + span.channel;
#pragma GCC unroll 8
    for (int k = 0; k < Span::size; ++k) {
      to[k] = load_partial<T>(first + span.step_of(k) * from.step_stride + span.channel_of(k), span.lanes);
    }
  }

  // Stores a span of a result (B, T, D).
  template <typename Span>
  inline __attribute__((always_inline)) void store_span(T* to, Span span, const Vector<T> (&from)[Span::size]) const {
    const int64_t stride = s.channels;
    T* const first = to + (row * s.steps + span.step) * stride + span.channel;
    const bool streams = kCanStream && s.streams;
#pragma GCC unroll 8
    for (int k = 0; k < Span::size; ++k) {
      T* const place = first + span.step_of(k) * stride + span.channel_of(k);
      if (streams) {
        stream<T>(place, from[k]);
      } else {
        store_partial<T>(place, from[k], span.lanes);
      }
    }
  }

  // Loads numbers of the channels, (D,).
  template <typename Span>
  inline __attribute__((always_inline)) void load_channels(const T* from, Span span, Vector<T> (&to)[Span::size]) const {
#pragma GCC unroll 8
    for (int k = 0; k < Span::size; ++k) to[k] = load<T>(from + span.channel + span.channel_of(k));
  }

  template <typename Span>
  inline __attribute__((always_inline)) void load_field(Field field, Span span, Vector<T> (&to)[Span::size]) const {
#pragma GCC unroll 8
    for (int k = 0; k < Span::size; ++k) to[k] = load<T>(span.at(field, k));
  }

  template <typename Span>
  inline __attribute__((always_inline)) void store_field(Field field, Span span, const Vector<T> (&from)[Span::size]) const {
#pragma GCC unroll 8
    for (int k = 0; k < Span::size; ++k) store<T>(span.at(field, k), from[k]);
  }

  // Fills the rows of a span with step sizes d, d u, and skip u, to which the states add their outputs; on request with the
  // derivatives of d with respect to delta.
  template <bool keep_slopes, typename Span>
  inline __attribute__((always_inline)) void load_steps(Span span) const {
    Vector<T> u[Span::size], d[Span::size], slope[Span::size], bias[Span::size], y[Span::size];
    load_span(s.inputs, span, u);
    load_span(s.delta, span, d);
    load_channels(s.delta_bias, span, bias);
    load_channels(s.skip, span, y);
#pragma GCC unroll 8
    for (int k = 0; k < Span::size; ++k) {
      d[k] += bias[k];
      y[k] = y[k] * u[k];
      slope[k] = broadcast<T>(T(1));
    }
    if (s.softplus) softplus<T, Span::size>(d, slope);
#pragma GCC unroll 8
    for (int k = 0; k < Span::size; ++k) u[k] = d[k] * u[k];
    store_field(step_sizes, span, d);
    store_field(driven, span, u);
    store_field(contracted, span, y);
    if constexpr (keep_slopes) store_field(step_slopes, span, slope);
  }

  // Rows that a loop over the steps of a chunk prefetches, one a step: the next strip reads them, and they are too far apart in
  // memory for the hardware to foresee.
  struct Ahead {
    const T* from;
    int64_t stride;
  };

  // The rows of the strip after one, in its chunk or in the `next`; nothing new if the tensor is absent or has no such steps.
  template <int vectors>
  Ahead ahead(const Steps<T>* tensor, const Chunk& chunk, const Strip& strip, int64_t next) const {
    const int64_t channel = strip.channel + vectors * width;
    const bool is_last = channel >= end_channel();
    const int64_t first_step = is_last ? next * s.chunk_steps : chunk.first_step;
    if (tensor == nullptr || tensor->data == nullptr || first_step < 0 || first_step + s.chunk_steps > s.steps) {
      return {s.rates, 0};
    }
    return {tensor->at(row, first_step) + (is_last ? first_channel : channel), tensor->step_stride};
  }

  // Numbers of a block of states of a strip.
  template <int vectors>
  struct Block {
    Vector<T> of[vectors][kStateBlock];

    // From vectors of states at a distance.
    inline __attribute__((always_inline)) void load_from(const T* from, int64_t next_vector, int64_t next_state) {
#pragma GCC unroll 8
      for (int v = 0; v < vectors; ++v) {
#pragma GCC unroll 8
        for (int j = 0; j < kStateBlock; ++j) of[v][j] = load<T>(from + v * next_vector + j * next_state);
      }
    }

    inline __attribute__((always_inline)) void store_to(T* to, int64_t next_vector, int64_t next_state) const {
#pragma GCC unroll 8
      for (int v = 0; v < vectors; ++v) {
#pragma GCC unroll 8
        for (int j = 0; j < kStateBlock; ++j) store<T>(to + v * next_vector + j * next_state, of[v][j]);
      }
    }

    inline __attribute__((always_inline)) void add_to(T* to, int64_t next_vector, int64_t next_state) const {
      Block sums;
      sums.load_from(to, next_vector, next_state);
#pragma GCC unroll 8
      for (int v = 0; v < vectors; ++v) {
#pragma GCC unroll 8
        for (int j = 0; j < kStateBlock; ++j) sums.of[v][j] += of[v][j];
      }
      sums.store_to(to, next_vector, next_state);
    }
  };

  template <int vectors>
  Block<vectors> rates(const Strip& strip, int64_t first_state) const {
    Block<vectors> block;
    block.load_from(s.rates + first_state * s.padded_channels() + strip.channel, width, s.padded_channels());
    return block;
  }

  // Steps of a block of states of a strip: h = 2^(d rate) h + d u b, and contracted += c h. With `keep` each row of `kept` gets
  // the factors of a step and the states before it, and the row after them the last states, which are returned.
  template <int vectors, bool keep>
  Block<vectors> run_block(
      Block<vectors> h, int64_t count, const Strip& strip, int64_t first_state, const Ahead& ahead, T* kept) const {
    const Block<vectors> rate = rates<vectors>(strip, first_state);
    // Local, since stores might change members, as far as the compiler knows.
    const int64_t next_state = padded, next_ahead = ahead.stride;
    const T *b_t = b + first_state, *c_t = c + first_state, *from_ahead = ahead.from;
    T* of_step = rows;
    for (int64_t t = 0; t < count; ++t) {
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) {
        __builtin_prefetch(from_ahead + v * width, 0, 2);
        step<keep>(h.of[v], rate.of[v], of_step + v * width, b_t, c_t, kept + 2 * v * kStateBlock * width);
      }
      of_step += row_size;
      b_t += next_state;
      c_t += next_state;
      from_ahead += next_ahead;
      if constexpr (keep) kept += kept_size;
    }
    if constexpr (keep) h.store_to(kept + kStateBlock * width, 2 * kStateBlock * width, width);
    return h;
  }

  template <bool keep>
  SEQMEM_INLINE void step(
      Vector<T> (&h)[kStateBlock], const Vector<T> (&rate)[kStateBlock], T* of_step, const T* b, const T* c, T* kept) {
    constexpr int next_field = strip_vectors * width;
    const Vector<T> d = load<T>(of_step + step_sizes * next_field), term = load<T>(of_step + driven * next_field);
    Vector<T> sum = load<T>(of_step + contracted * next_field), factor[kStateBlock];
#pragma GCC unroll 8
    for (int j = 0; j < kStateBlock; ++j) factor[j] = d * rate[j];
    power_of_two<T, kStateBlock>(factor);
#pragma GCC unroll 8
    for (int j = 0; j < kStateBlock; ++j) {
      if constexpr (keep) {
        store<T>(kept + j * width, factor[j]);
        store<T>(kept + (kStateBlock + j) * width, h[j]);
      }
      h[j] = factor[j] * h[j] + term * b[j];
      sum += h[j] * c[j];
    }
    store<T>(of_step + contracted * next_field, sum);
  }

  const SelectiveScan<T>& s;
  const int64_t row, first_channel, padded, length;
  T* const states;  // (vectors, padded states, W)
  T* const rows;    // (steps of a chunk, row size)
  T* const b;       // (steps of a chunk, padded states)
  T* const c;
};

}  // namespace seqmem::SEQMEM_ISA
