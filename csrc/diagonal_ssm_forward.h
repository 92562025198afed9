// Forward loop of diagonal state space models for one row of one vector of channels.
#pragma once

#include "diagonal_ssm.h"
#include "sequence_rows.h"
#include "vector.h"

namespace seqmem::SEQMEM_ISA {

// Modes that run together, so that their recurrences hide each other's latency; limited by the number of registers.
constexpr int kForwardModes = SEQMEM_VECTOR_BYTES == 64 ? 4 : 2;

// One vector of channels of a row: its place in the tensors, and the order of its steps.
template <typename T>
struct SSMRow {
  static constexpr int width = kLanes<T>;
  const DiagonalSSM<T>& s;
  const int64_t row, first_channel, length;
  const int count;  // channels of the vector; lanes beyond them compute with zeros

  SSMRow(const DiagonalSSM<T>& ssm, int64_t r, int64_t block)
      : s(ssm), row(r), first_channel(block * width), length(ssm.length(r)),
        count(first_channel >= s.channels ? 0 : int(s.channels - first_channel < width ? s.channels - first_channel : width)) {}

  // Offset of step k of the recurrence in (B, T, H).
  int64_t at(int64_t k) const {
    return (row * s.steps + (s.reverse ? length - 1 - k : k)) * s.channels + first_channel;
  }
  // Numbers of mode m in the coefficients, (M, 2, padded).
  const T* mode(const T* from, int64_t m) const { return from + 2 * m * s.padded + first_channel; }
  Vector<T> real(const T* from, int64_t m) const { return load<T>(mode(from, m)); }
  Vector<T> imaginary(const T* from, int64_t m) const { return load<T>(mode(from, m) + s.padded); }

  // Converts a state (B, H, M, 2) to (M, 2, W); null for zero.
  void load_state(const T* from, T* to) const {
    const int64_t numbers = 2 * s.modes;
    for (int64_t k = 0; k < numbers * width; ++k) to[k] = 0;
    if (from == nullptr) return;
    for (int lane = 0; lane < count; ++lane) {
      const T* const channel = from + (row * s.channels + first_channel + lane) * numbers;
      for (int64_t k = 0; k < numbers; ++k) to[k * width + lane] = channel[k];
    }
  }
  void store_state(const T* from, T* to) const {
    const int64_t numbers = 2 * s.modes;
    for (int lane = 0; lane < count; ++lane) {
      T* const channel = to + (row * s.channels + first_channel + lane) * numbers;
      for (int64_t k = 0; k < numbers; ++k) channel[k] = from[k * width + lane];
    }
  }

  // Loads steps [begin, end) of (B, T, H) into (end - begin, W); null for zero.
  void load_steps(const T* from, int64_t begin, int64_t end, T* to) const {
    for (int64_t k = begin; k < end; ++k, to += width) {
      store<T>(to, from == nullptr ? Vector<T>{} : load_partial<T>(from + at(k), count));
    }
  }
  void store_steps(const T* from, int64_t begin, int64_t end, T* to) const {
    for (int64_t k = begin; k < end; ++k, from += width) store_partial<T>(to + at(k), load<T>(from), count);
  }
  // Sets the padding of (B, T, H) to zero.
  void clear_padding(T* to) const {
    for (int64_t t = length; t < s.steps; ++t) {
      store_partial<T>(to + (row * s.steps + t) * s.channels + first_channel, Vector<T>{}, count);
    }
  }
  // Sets what is saved of chunks without valid steps to zero, so that the result is defined.
  void clear_saved(int64_t first_chunk) const {
    if (s.saved == nullptr) return;
    for (int64_t chunk = first_chunk; chunk < s.chunks(); ++chunk) {
      for (int64_t k = 0; k < 2 * s.modes; ++k) store<T>(saved(chunk) + k * s.padded, Vector<T>{});
    }
  }
  T* saved(int64_t chunk) const { return s.saved + (row * s.chunks() + chunk) * s.state_size() + first_channel; }
};

// Coefficients and state of `count` modes in registers.
template <typename T, int count, bool driven>
struct Modes {
  Vector<T> a_re[count], a_im[count], b_re[count], b_im[count], re[count], im[count];

  Modes(const SSMRow<T>& row, int64_t m, const T* state) {
    constexpr int width = kLanes<T>;
#pragma GCC unroll 4
    for (int u = 0; u < count; ++u) {
      a_re[u] = row.real(row.s.a, m + u);
      a_im[u] = row.imaginary(row.s.a, m + u);
      if constexpr (driven) {
        b_re[u] = row.real(row.s.b, m + u);
        b_im[u] = row.imaginary(row.s.b, m + u);
      }
      re[u] = load<T>(state + 2 * (m + u) * width);
      im[u] = load<T>(state + (2 * (m + u) + 1) * width);
    }
  }

  // s = a s + b x
  void step(int u, const Vector<T>& x) {
    Vector<T> next_re, next_im;
    if constexpr (driven) {
      next_re = b_re[u] * x - a_im[u] * im[u];
      next_im = b_im[u] * x + a_im[u] * re[u];
    } else {
      next_re = x - a_im[u] * im[u];
      next_im = a_im[u] * re[u];
    }
    re[u] = a_re[u] * re[u] + next_re;
    im[u] = a_re[u] * im[u] + next_im;
  }

  void store_to(int64_t m, T* state) const {
    constexpr int width = kLanes<T>;
#pragma GCC unroll 4
    for (int u = 0; u < count; ++u) {
      store<T>(state + 2 * (m + u) * width, re[u]);
      store<T>(state + (2 * (m + u) + 1) * width, im[u]);
    }
  }
};

// Runs modes [m, m + count) through a chunk and adds their terms to y.
template <typename T, int count, bool driven>
static void add_modes(const SSMRow<T>& row, int64_t m, int64_t steps, const T* x, T* y, T* state) {
  constexpr int width = kLanes<T>;
  Modes<T, count, driven> modes(row, m, state);
  Vector<T> c_re[count], c_im[count];
#pragma GCC unroll 4
  for (int u = 0; u < count; ++u) {
    c_re[u] = row.real(row.s.c, m + u);
    c_im[u] = row.imaginary(row.s.c, m + u);
  }
  for (int64_t k = 0; k < steps; ++k) {
    const Vector<T> input = load<T>(x + k * width);
    Vector<T> output = load<T>(y + k * width);
#pragma GCC unroll 4
    for (int u = 0; u < count; ++u) {
      modes.step(u, input);
      output += c_re[u] * modes.re[u];
      output -= c_im[u] * modes.im[u];
    }
    store<T>(y + k * width, output);
  }
  modes.store_to(m, state);
}

template <typename T, bool driven>
static void diagonal_ssm_row(const SSMRow<T>& row, Arena<T>& arena) {
  constexpr int width = kLanes<T>;
  const DiagonalSSM<T>& s = row.s;
  T* const x = arena.allocate(s.chunk_steps * width);
  T* const y = arena.allocate(s.chunk_steps * width);
  T* const state = arena.allocate(2 * s.modes * width);
  row.load_state(s.initial, state);
  const Vector<T> skip = s.skip == nullptr ? Vector<T>{} : load<T>(s.skip + row.first_channel);
  for (int64_t begin = 0; begin < row.length; begin += s.chunk_steps) {
    const int64_t end = begin + s.chunk_steps < row.length ? begin + s.chunk_steps : row.length, steps = end - begin;
    if (s.saved != nullptr) {
      T* const saved = row.saved(begin / s.chunk_steps);
      for (int64_t k = 0; k < 2 * s.modes; ++k) store<T>(saved + k * s.padded, load<T>(state + k * width));
    }
    row.load_steps(s.inputs, begin, end, x);
    for (int64_t k = 0; k < steps * width; k += width) store<T>(y + k, skip * load<T>(x + k));
    int64_t m = 0;
    for (; m + kForwardModes <= s.modes; m += kForwardModes) {
      add_modes<T, kForwardModes, driven>(row, m, steps, x, y, state);
    }
    for (; m < s.modes; ++m) add_modes<T, 1, driven>(row, m, steps, x, y, state);
    row.store_steps(y, begin, end, s.outputs);
  }
  row.clear_padding(s.outputs);
  row.store_state(state, s.final);
  row.clear_saved((row.length + s.chunk_steps - 1) / s.chunk_steps);
}

template <typename T>
static void diagonal_ssm_forward(const DiagonalSSM<T>& s, int64_t row, int64_t block, T* workspace) {
  Arena<T> arena{workspace};
  const SSMRow<T> place(s, row, block);
  if (place.count == 0) return place.clear_saved(0);
  s.b == nullptr ? diagonal_ssm_row<T, false>(place, arena) : diagonal_ssm_row<T, true>(place, arena);
}

}  // namespace seqmem::SEQMEM_ISA
