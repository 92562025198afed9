// Loops of minGRU and minLSTM: the gates of the projected inputs, and the recurrence h_t = a_t h_{t-1} + i_t g(k_h) with
// g(k) = k + 1/2 for k >= 0 and sigmoid(k) below. Backward computes the gates again.
#pragma once

#include <cstdint>

#include "log1p.h"
#include "scan.h"
#include "scan_columns.h"
#include "sequence_math.h"
#include "vector.h"

namespace seqmem::SEQMEM_ISA {

// exp of numbers that are not positive, in place
template <typename T, int n>
SEQMEM_INLINE void decay(Vector<T> (&x)[n]) {
  Vector<T> scale[n], rest[n];
  for (int j = 0; j < n; ++j) x[j] = clamp<T>(x[j], ExpConstants<T>::min, T(0));
  split_exp<T, n>(x, scale, rest);
  for (int j = 0; j < n; ++j) x[j] = scale[j] * rest[j] + scale[j];
}

// sigmoid(x) and sigmoid(-x), each to its own precision, from exp(-|x|)
template <typename T>
struct Sigmoid {
  Vector<T> value, complement;

  Sigmoid(const Vector<T>& x, const Vector<T>& decayed) {
    const Vector<T> large = reciprocal<T>(decayed + T(1)), small = decayed * large;
    value = x < T(0) ? small : large;
    complement = x < T(0) ? large : small;
  }
};

// Gates of one vector: h = keep h' + enter candidate.
template <typename T, Gates kind>
struct GateValues {
  static constexpr int parts = kind == Gates::gru ? 2 : 3;
  Vector<T> keep, enter, candidate, slope;  // slope: g'
  Vector<T> first, second;                  // derivatives of ln(enter / keep), or of keep and enter, by k_f and k_i

  explicit GateValues(const Vector<T> (&k)[parts]) {
    if constexpr (kind == Gates::lstm) {
      const Vector<T> forget = clamp<T>(-k[1], T(-1e30), T(1e30)), input = clamp<T>(-k[2], T(-1e30), T(1e30));
      const Vector<T> larger = forget > input ? forget : input, shift = larger > T(0) ? larger : Vector<T>{};
      Vector<T> x[] = {minus_absolute<T>(k[0]), -shift, forget - shift, input - shift};
      decay<T, 4>(x);
      set_candidate(k[0], x[0]);
      // f = 1 / (1 + exp(forget)) and i = 1 / (1 + exp(input)), both times exp(-shift) over the same denominator.
      const Vector<T> scale = reciprocal<T>((x[1] + x[1]) + (x[2] + x[3]));
      keep = (x[1] + x[3]) * scale;
      enter = (x[1] + x[2]) * scale;
      first = -keep * (x[2] * scale);
      second = enter * (x[3] * scale);
    } else if constexpr (kind == Gates::lstm_raw) {
      Vector<T> x[] = {minus_absolute<T>(k[0]), minus_absolute<T>(k[1]), minus_absolute<T>(k[2])};
      decay<T, 3>(x);
      set_candidate(k[0], x[0]);
      const Sigmoid<T> forget(k[1], x[1]), input(k[2], x[2]);
      keep = forget.value;
      enter = input.value;
      first = keep * forget.complement;
      second = enter * input.complement;
    } else {
      Vector<T> x[] = {minus_absolute<T>(k[0]), minus_absolute<T>(k[1])};
      decay<T, 2>(x);
      set_candidate(k[0], x[0]);
      const Sigmoid<T> update(k[1], x[1]);
      keep = update.complement;
      enter = update.value;
      first = keep * enter;
    }
  }

  void set_candidate(const Vector<T>& k, const Vector<T>& decayed) {
    const Sigmoid<T> below(k, decayed);
    candidate = k < T(0) ? below.value : k + T(0.5);
    slope = k < T(0) ? below.value * below.complement : broadcast<T>(T(1));
  }

  // Gradients of k from those of h, and h before the step.
  void gradients(const Vector<T>& grad, const Vector<T>& before, Vector<T> (&grad_k)[parts]) const {
    grad_k[0] = grad * enter * slope;
    if constexpr (kind == Gates::lstm_raw) {
      grad_k[1] = grad * before * first;
      grad_k[2] = grad * candidate * second;
    } else {
      const Vector<T> change = grad * (candidate - before);
      grad_k[1] = change * first;
      if constexpr (parts == 3) grad_k[2] = change * second;
    }
  }
};

template <typename T, Gates kind, bool is_partial>
static void run_gates(const MinimalGates<T>& s, const ScanRange& range, T* state) {
  constexpr int parts = GateValues<T, kind>::parts;
  const int64_t width = s.sizes.width, steps = s.sizes.steps, length = s.sizes.length(range.row);
  const int64_t row = range.row * width + range.begin;
  const ScanColumns<T, is_partial> columns{range.count()};
  const T* const projected = s.projected + range.row * steps * parts * width + range.begin;
  T* const h = s.h + range.row * steps * width + range.begin;
  const bool streams = s.sizes.streams;
  columns.fill(state, s.initial == nullptr ? nullptr : s.initial + row);
  for (int64_t t = 0; t < length; ++t) {
    const T* const inputs = projected + t * parts * width;
    columns.each(true, [&](int64_t c, int64_t slot) {
      Vector<T> k[parts];
      for (int part = 0; part < parts; ++part) k[part] = columns.read(inputs + part * width + c);
      const GateValues<T, kind> gates(k);
      const Vector<T> after = gates.keep * load<T>(state + slot) + gates.enter * gates.candidate;
      store<T>(state + slot, after);
      columns.write(h + t * width + c, after, streams);
    });
  }
  columns.copy(s.final + row, state);
  clear_steps<T>(h, width, length, steps, range.count());
  finish_streams();
}

template <typename T, Gates kind, bool is_partial>
static void run_gates_backward(const MinimalGates<T>& s, const ScanRange& range, T* workspace) {
  constexpr int parts = GateValues<T, kind>::parts;
  const int64_t width = s.sizes.width, steps = s.sizes.steps, length = s.sizes.length(range.row);
  const int64_t row = range.row * width + range.begin, first = range.row * steps;
  const ScanColumns<T, is_partial> columns{range.count()};
  const int64_t size = columns.vectors() * kLanes<T>, grad_step = s.grad_h == nullptr ? 0 : width;
  T *const carried = workspace, *const before = carried + size, *const zeros = before + size;
  const T* const projected = s.projected + first * parts * width + range.begin;
  const T* const h = s.states + first * width + range.begin;
  const T* const grad_h = s.grad_h == nullptr ? zeros : s.grad_h + first * width + range.begin;
  T* const grad_projected = s.grad_projected + first * parts * width + range.begin;
  const bool streams = s.sizes.streams;
  columns.fill(carried, s.grad_final == nullptr ? nullptr : s.grad_final + row);
  columns.fill(zeros, nullptr);
  for (int64_t k = 0; k < range.count(); ++k) before[k] = s.initial == nullptr ? T(0) : s.initial[row + k];
  for (int64_t t = length - 1; t >= 0; --t) {
    const T *const inputs = projected + t * parts * width, *const previous = t == 0 ? before : h + (t - 1) * width;
    T* const outputs = grad_projected + t * parts * width;
    columns.each(false, [&](int64_t c, int64_t slot) {
      Vector<T> k[parts], grad_k[parts];
      for (int part = 0; part < parts; ++part) k[part] = columns.read(inputs + part * width + c);
      const GateValues<T, kind> gates(k);
      const Vector<T> g = load<T>(carried + slot) + columns.read(grad_h + t * grad_step + c);
      gates.gradients(g, columns.read(previous + c), grad_k);
      for (int part = 0; part < parts; ++part) columns.write(outputs + part * width + c, grad_k[part], streams);
      store<T>(carried + slot, gates.keep * g);
    });
  }
  columns.copy(s.grad_initial + row, carried);
  for (int part = 0; part < parts; ++part) {
    clear_steps<T>(grad_projected + part * width, parts * width, length, steps, range.count());
  }
  finish_streams();
}

template <typename T, Gates kind>
static void gates_of(const MinimalGates<T>& s, const ScanRange& range, bool is_backward, T* workspace) {
  const bool is_partial = range.count() < kLanes<T>;
  if (is_backward) {
    is_partial ? run_gates_backward<T, kind, true>(s, range, workspace)
               : run_gates_backward<T, kind, false>(s, range, workspace);
  } else {
    is_partial ? run_gates<T, kind, true>(s, range, workspace) : run_gates<T, kind, false>(s, range, workspace);
  }
}

template <typename T, bool is_backward>
static void gates_loop(const MinimalGates<T>& s, const ScanRange& range, T* workspace) {
  switch (s.gates) {
    case Gates::gru:
      return gates_of<T, Gates::gru>(s, range, is_backward, workspace);
    case Gates::lstm:
      return gates_of<T, Gates::lstm>(s, range, is_backward, workspace);
    case Gates::lstm_raw:
      return gates_of<T, Gates::lstm_raw>(s, range, is_backward, workspace);
  }
}

}  // namespace seqmem::SEQMEM_ISA
