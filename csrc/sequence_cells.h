// What each cell does between its products, for W hidden units of one row at a time: from the gates' sums to the new hidden
// state, and from the gradient of the new hidden state to those of the sums.
//
// kGates sums come in, kSaved numbers are kept for the way back, kGradients gradients come out. The first kProducts of these
// belong to weights that read the input, the last kProducts to weights that read the memory and the hidden state.
#pragma once

#include "sequence.h"
#include "sequence_math.h"

namespace seqmem::SEQMEM_ISA {

// Of W hidden units of one row: the gates' sums, the state before a step and then the one after it, and what is kept.
template <typename T, typename Rule>
struct Units {
  Vector<T> z[Rule::kGates], h, c, saved[Rule::kSaved];
};

// c = act(z_0), g = sigmoid(z_1), h = h + g (c - h); without gate h = c.
template <typename T, bool gated>
struct MemoryRule {
  static constexpr int kGates = gated ? 2 : 1, kSaved = kGates, kGradients = kGates, kProducts = kGates;
  static constexpr bool kHasMemory = true, kHasCarry = false;
  static constexpr bool reads(int, Source) { return true; }
  static constexpr int weight_row(int gate) { return gate; }
  static constexpr int gradient_row(Source, int section) { return section; }

  template <int n>
  static inline __attribute__((always_inline)) void forward(const Sequence<T>& s, Units<T, MemoryRule> (&all)[n]) {
    for (auto& [z, h, c, saved] : all) {
      saved[0] = activate<T>(s.hidden_activation, z[0]);
      if constexpr (gated) {
        saved[1] = sigmoid<T>(z[1]);
        h = h + saved[1] * (saved[0] - h);
      } else {
        h = saved[0];
      }
    }
  }

  static inline __attribute__((always_inline)) void backward(
      const Sequence<T>& s, const Vector<T>* saved, const Vector<T>& h_before, const Vector<T>&, Vector<T>& dh, Vector<T>&,
      Vector<T>* dz) {
    if constexpr (gated) {
      const Vector<T> c = saved[0], g = saved[1];
      dz[0] = dh * g * slope<T>(s.hidden_activation, c);
      dz[1] = dh * (c - h_before) * (g * (T(1) - g));
      dh = dh * (T(1) - g);
    } else {
      dz[0] = dh * slope<T>(s.hidden_activation, saved[0]);
      dh = Vector<T>{};
    }
  }
};

// i, f, o = sigmoid, g = tanh of their sums, c = f c + i g, h = o tanh(c); kept: i, f, g, o, c.
template <typename T>
struct LstmRule {
  static constexpr int kGates = 4, kSaved = 5, kGradients = 4, kProducts = 4;
  static constexpr bool kHasMemory = false, kHasCarry = true;
  static constexpr bool reads(int, Source source) { return source != from_memory; }
  static constexpr int weight_row(int gate) { return gate; }
  static constexpr int gradient_row(Source, int section) { return section; }

  template <int n>
  static inline __attribute__((always_inline)) void forward(const Sequence<T>&, Units<T, LstmRule> (&all)[n]) {
    Vector<T> squashed[n];
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) {
      auto& [z, h, c, saved] = all[j];
      Vector<T> gates[] = {z[0], z[1], z[3], z[2]};
      squash<T, 3, 1>(gates);
      saved[0] = gates[0];
      saved[1] = gates[1];
      saved[2] = gates[3];
      saved[3] = gates[2];
      c = saved[1] * c + saved[0] * saved[2];
      saved[4] = c;
      squashed[j] = c;
    }
    squash<T, 0, n>(squashed);
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) all[j].h = all[j].saved[3] * squashed[j];
  }

  static inline __attribute__((always_inline)) void backward(
      const Sequence<T>&, const Vector<T>* saved, const Vector<T>&, const Vector<T>& c_before, Vector<T>& dh, Vector<T>& dc,
      Vector<T>* dz) {
    const Vector<T> i = saved[0], f = saved[1], g = saved[2], o = saved[3], squashed = tanh<T>(saved[4]);
    const Vector<T> total = dc + dh * o * (T(1) - squashed * squashed);
    dz[0] = total * g * (i * (T(1) - i));
    dz[1] = total * c_before * (f * (T(1) - f));
    dz[2] = total * i * (T(1) - g * g);
    dz[3] = dh * squashed * (o * (T(1) - o));
    dc = total * f;
    dh = Vector<T>{};
  }
};

// r, z = sigmoid, n = tanh(z_3 + r z_2) with z_2 of the hidden state alone and z_3 of the input alone, h = n + z (h - n);
// kept: r, z, n, z_2. Gradients come as those of n, r, z, z_2, so that the first three read the input and the last three h.
template <typename T>
struct GruRule {
  static constexpr int kGates = 4, kSaved = 4, kGradients = 4, kProducts = 3;
  static constexpr bool kHasMemory = false, kHasCarry = false;
  static constexpr bool reads(int gate, Source source) {
    return source == from_hidden ? gate != 3 : source == from_input && gate != 2;
  }
  static constexpr int weight_row(int gate) { return gate < 2 ? gate : 2; }
  static constexpr int gradient_row(Source source, int section) { return source == from_input ? (section + 2) % 3 : section - 1; }

  template <int n>
  static inline __attribute__((always_inline)) void forward(const Sequence<T>&, Units<T, GruRule> (&all)[n]) {
    Vector<T> squashed[n];
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) {
      auto& [z, h, c, saved] = all[j];
      Vector<T> gates[] = {z[0], z[1]};
      squash<T, 2, 0>(gates);
      saved[0] = gates[0];
      saved[1] = gates[1];
      saved[3] = z[2];
      squashed[j] = z[3] + saved[0] * z[2];
    }
    squash<T, 0, n>(squashed);
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) {
      all[j].saved[2] = squashed[j];
      all[j].h = squashed[j] + all[j].saved[1] * (all[j].h - squashed[j]);
    }
  }

  static inline __attribute__((always_inline)) void backward(
      const Sequence<T>&, const Vector<T>* saved, const Vector<T>& h_before, const Vector<T>&, Vector<T>& dh, Vector<T>&,
      Vector<T>* dz) {
    const Vector<T> r = saved[0], z = saved[1], n = saved[2];
    dz[0] = dh * (T(1) - z) * (T(1) - n * n);
    dz[1] = dz[0] * saved[3] * (r * (T(1) - r));
    dz[2] = dh * (h_before - n) * (z * (T(1) - z));
    dz[3] = dz[0] * r;
    dh = dh * z;
  }
};

}  // namespace seqmem::SEQMEM_ISA
