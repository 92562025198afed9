// Pointwise part of each cell, for W hidden units of one row: forward from the gates' sums to the new hidden state, backward
// from its gradient to the gradients of the sums.
//
// A cell has kGates sums, kSaved numbers saved for backward, and kGradients gradients. Those in first_section(source) and the
// following products(source) sections are multiplied with the weights of a source.
//
// The references are memory_network_reference, modrelu_reference, lstm_reference and gru_reference in
// seqmem/ops/{memory_network,modrelu,lstm,gru}.py.
#pragma once

#include "sequence.h"
#include "sequence_math.h"

namespace seqmem::SEQMEM_ISA {

// W hidden units of one row: the gates' sums z, the state h and c before and then after the step, and the saved numbers.
template <typename T, typename Pointwise>
struct UnitState {
  Vector<T> z[Pointwise::kGates], h, c, saved[Pointwise::kSaved];
};

// Memory cell: c = act(z_0), g = sigmoid(z_1), h = h + g (c - h); without a gate h = c.
template <typename T, bool gated>
struct MemoryPointwise {
  static constexpr int kGates = gated ? 2 : 1, kSaved = kGates, kGradients = kGates;
  static constexpr bool kHasMemory = true, kHasCarry = false, kResetBefore = false;
  static constexpr bool uses(int, Source) { return true; }
  static constexpr int weight_row(int gate, Source) { return gate; }
  static constexpr int first_section(Source) { return 0; }
  static constexpr int products(Source) { return kGates; }
  static constexpr int gradient_row(Source, int section) { return section; }

  template <int n>
  static inline __attribute__((always_inline)) void forward(const Sequence<T>& s, UnitState<T, MemoryPointwise> (&units)[n]) {
    for (auto& [z, h, c, saved] : units) {
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
      dz[0] = dh * g * derivative<T>(s.hidden_activation, c);
      dz[1] = dh * (c - h_before) * (g * (T(1) - g));
      dh = dh * (T(1) - g);
    } else {
      dz[0] = dh * derivative<T>(s.hidden_activation, saved[0]);
      dh = Vector<T>{};
    }
  }
};

// LSTM: i, f, o = sigmoid and g = tanh of their sums, c = f c + i g, h = o tanh(c); saved: i, f, g, o, c.
template <typename T>
struct LstmPointwise {
  static constexpr int kGates = 4, kSaved = 5, kGradients = 4;
  static constexpr bool kHasMemory = false, kHasCarry = true, kResetBefore = false;
  static constexpr bool uses(int, Source source) { return source != from_memory; }
  static constexpr int weight_row(int gate, Source) { return gate; }
  static constexpr int first_section(Source) { return 0; }
  static constexpr int products(Source) { return kGates; }
  static constexpr int gradient_row(Source, int section) { return section; }

  template <int n>
  static inline __attribute__((always_inline)) void forward(const Sequence<T>&, UnitState<T, LstmPointwise> (&units)[n]) {
    Vector<T> tanh_c[n];
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) {
      auto& [z, h, c, saved] = units[j];
      Vector<T> gates[] = {z[0], z[1], z[3], z[2]};
      sigmoid_tanh<T, 3, 1>(gates);
      saved[0] = gates[0];
      saved[1] = gates[1];
      saved[2] = gates[3];
      saved[3] = gates[2];
      c = saved[1] * c + saved[0] * saved[2];
      saved[4] = c;
      tanh_c[j] = c;
    }
    sigmoid_tanh<T, 0, n>(tanh_c);
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) units[j].h = units[j].saved[3] * tanh_c[j];
  }

  static inline __attribute__((always_inline)) void backward(
      const Sequence<T>&, const Vector<T>* saved, const Vector<T>&, const Vector<T>& c_before, Vector<T>& dh, Vector<T>& dc,
      Vector<T>* dz) {
    const Vector<T> i = saved[0], f = saved[1], g = saved[2], o = saved[3], tanh_c = tanh<T>(saved[4]);
    const Vector<T> dc_total = dc + dh * o * (T(1) - tanh_c * tanh_c);
    dz[0] = dc_total * g * (i * (T(1) - i));
    dz[1] = dc_total * c_before * (f * (T(1) - f));
    dz[2] = dc_total * i * (T(1) - g * g);
    dz[3] = dh * tanh_c * (o * (T(1) - o));
    dc = dc_total * f;
    dh = Vector<T>{};
  }
};

// Plain network with modReLU: h = sign(z_0) max(|z_0| + z_1, 0). The sum z_1 is the bias of the activation alone. Saved: h.
template <typename T>
struct ModreluPointwise {
  static constexpr int kGates = 2, kSaved = 1, kGradients = 2;
  static constexpr bool kHasMemory = false, kHasCarry = false, kResetBefore = false;
  static constexpr bool uses(int gate, Source source) { return gate == 0 && source != from_memory; }
  static constexpr int weight_row(int, Source) { return 0; }
  static constexpr int first_section(Source) { return 0; }
  static constexpr int products(Source) { return 1; }
  static constexpr int gradient_row(Source, int) { return 0; }

  template <int n>
  static inline __attribute__((always_inline)) void forward(const Sequence<T>&, UnitState<T, ModreluPointwise> (&units)[n]) {
    for (auto& [z, h, c, saved] : units) {
      const Vector<T> negated = -z[0], magnitude = (z[0] < T(0) ? negated : z[0]) + z[1];
      h = z[0] < T(0) ? -magnitude : magnitude;
      h = magnitude <= T(0) ? Vector<T>{} : h;  // NaN in z_0 stays NaN
      h = z[0] == T(0) ? Vector<T>{} : h;
      saved[0] = h;
    }
  }

  static inline __attribute__((always_inline)) void backward(
      const Sequence<T>&, const Vector<T>* saved, const Vector<T>&, const Vector<T>&, Vector<T>& dh, Vector<T>&,
      Vector<T>* dz) {
    const Vector<T> negated = -dh;
    dz[0] = saved[0] == T(0) ? Vector<T>{} : dh;
    dz[1] = saved[0] < T(0) ? negated : dz[0];
    dh = Vector<T>{};
  }
};

// GRU: r, z = sigmoid, n = act(z_3 + r z_2) with z_2 of the hidden state and z_3 of the input, h = n + z (h - n); saved: r, z,
// n, z_2. The gradients are those of n, r, z, z_2: the first three for the weights of the input, the last three for those of h.
template <typename T>
struct GruPointwise {
  static constexpr int kGates = 4, kSaved = 4, kGradients = 4;
  static constexpr bool kHasMemory = false, kHasCarry = false, kResetBefore = false;
  static constexpr bool uses(int gate, Source source) {
    return source == from_hidden ? gate != 3 : source == from_input && gate != 2;
  }
  static constexpr int weight_row(int gate, Source) { return gate < 2 ? gate : 2; }
  static constexpr int first_section(Source source) { return source == from_input ? 0 : 1; }
  static constexpr int products(Source) { return 3; }
  static constexpr int gradient_row(Source source, int section) {
    return source == from_input ? (section + 2) % 3 : section - 1;
  }

  template <int n>
  static inline __attribute__((always_inline)) void forward(const Sequence<T>& s, UnitState<T, GruPointwise> (&units)[n]) {
    Vector<T> candidate[n];
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) {
      auto& [z, h, c, saved] = units[j];
      Vector<T> gates[] = {z[0], z[1]};
      sigmoid_tanh<T, 2, 0>(gates);
      saved[0] = gates[0];
      saved[1] = gates[1];
      saved[3] = z[2];
      candidate[j] = z[3] + saved[0] * z[2];
    }
    if (s.hidden_activation == Activation::tanh) {
      sigmoid_tanh<T, 0, n>(candidate);
    } else {
      for (auto& each : candidate) each = activate<T>(s.hidden_activation, each);
    }
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) {
      units[j].saved[2] = candidate[j];
      units[j].h = candidate[j] + units[j].saved[1] * (units[j].h - candidate[j]);
    }
  }

  static inline __attribute__((always_inline)) void backward(
      const Sequence<T>& s, const Vector<T>* saved, const Vector<T>& h_before, const Vector<T>&, Vector<T>& dh, Vector<T>&,
      Vector<T>* dz) {
    const Vector<T> r = saved[0], z = saved[1], n = saved[2];
    dz[0] = dh * (T(1) - z) * derivative<T>(s.hidden_activation, n);
    dz[1] = dz[0] * saved[3] * (r * (T(1) - r));
    dz[2] = dh * (h_before - n) * (z * (T(1) - z));
    dz[3] = dz[0] * r;
    dh = dh * z;
  }
};

// GRU with the reset gate before the product: r, z = sigmoid, n = act(W_n x + U_n (r h)), h = n + z (h - n); saved: r, z, n.
// A step has two parts, since the product of n needs r of all units: sums_[0] holds r, no longer its sum, when `forward` runs.
// The gradients are those of n, r and z; `backward` leaves that of r to `reset_backward`, after the product with U_n.
template <typename T>
struct GruResetBeforePointwise {
  static constexpr int kGates = 3, kSaved = 3, kGradients = 3;
  static constexpr bool kHasMemory = false, kHasCarry = false, kResetBefore = true;
  static constexpr bool uses(int gate, Source source) { return source == from_input || (source == from_memory) == (gate == 2); }
  static constexpr int weight_row(int gate, Source source) { return source == from_memory ? 0 : gate; }
  static constexpr int first_section(Source source) { return source == from_hidden ? 1 : 0; }
  static constexpr int products(Source source) { return source == from_memory ? 1 : source == from_hidden ? 2 : 3; }
  static constexpr int gradient_row(Source source, int section) {
    return source == from_input ? (section + 2) % 3 : source == from_hidden ? section - 1 : 0;
  }

  template <int n>
  static inline __attribute__((always_inline)) void forward(
      const Sequence<T>& s, UnitState<T, GruResetBeforePointwise> (&units)[n]) {
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) {
      auto& [z, h, c, saved] = units[j];
      saved[0] = z[0];
      if (s.hidden_activation == Activation::tanh) {
        Vector<T> gates[] = {z[1], z[2]};
        sigmoid_tanh<T, 1, 1>(gates);
        saved[1] = gates[0];
        saved[2] = gates[1];
      } else {
        saved[1] = sigmoid<T>(z[1]);
        saved[2] = activate<T>(s.hidden_activation, z[2]);
      }
      h = saved[2] + saved[1] * (h - saved[2]);
    }
  }

  static inline __attribute__((always_inline)) void backward(
      const Sequence<T>& s, const Vector<T>* saved, const Vector<T>& h_before, const Vector<T>&, Vector<T>& dh, Vector<T>&,
      Vector<T>* dz) {
    const Vector<T> z = saved[1], n = saved[2];
    dz[0] = dh * (T(1) - z) * derivative<T>(s.hidden_activation, n);
    dz[1] = Vector<T>{};
    dz[2] = dh * (h_before - n) * (z * (T(1) - z));
    dh = dh * z;
  }

  // From the gradient d of r h: adds to that of h, and returns that of the sum of r.
  static inline __attribute__((always_inline)) Vector<T> reset_backward(
      const Vector<T>& d, const Vector<T>& r, const Vector<T>& h_before, Vector<T>& dh) {
    dh += d * r;
    return d * h_before * (r * (T(1) - r));
  }
};

}  // namespace seqmem::SEQMEM_ISA
