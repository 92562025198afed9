// Backward loop of diagonal state space models for one row of one vector of channels.
//
// With the gradient g of the outputs, the gradient of the states is l_t = conj(c) g_t + conj(a) l_{t+1}. Then
//   grad x_t = Re(conj(b) l_t) + skip g_t,  grad a = sum l_t conj(s_{t-1}),  grad b = sum l_t x_t,  grad c = sum g_t conj(s_t).
// Where b = 1, the first state is zero and no gradient arrives at the final one, l = conj(c) l' with
// l'_t = g_t + conj(a) l'_{t+1}, which saves a third of the operations: grad a = conj(c) sum l'_t conj(s_{t-1}) and
// grad c = sum l'_t x_t.
#pragma once

#include "diagonal_ssm.h"
#include "diagonal_ssm_forward.h"
#include "sequence_rows.h"
#include "vector.h"

namespace seqmem::SEQMEM_ISA {

constexpr int kBackwardModes = SEQMEM_VECTOR_BYTES == 64 ? 2 : 1;

enum class SSMForm { unit, undriven, driven };  // is_unit(); b = 1; b given

template <typename T, SSMForm form>
struct SSMBackward {
  static constexpr int width = kLanes<T>;
  static constexpr bool unit = form == SSMForm::unit, driven = form == SSMForm::driven;
  const SSMRow<T>& row;
  const DiagonalSSM<T>& s;
  const DiagonalSSMGradients<T>& sums;
  T *const x, *const g, *const grad_x;  // (chunk_steps, W)
  T* const states;                      // (kForwardModes, chunk_steps + 1, 2, W)
  T *const state, *const later;         // (M, 2, W): s before the chunk; l of the step after (unit), else conj(a) l

  SSMBackward(const SSMRow<T>& place, const DiagonalSSMGradients<T>& gradients, Arena<T>& arena)
      : row(place), s(place.s), sums(gradients), x(arena.allocate(s.chunk_steps * width)),
        g(arena.allocate(s.chunk_steps * width)), grad_x(arena.allocate(s.chunk_steps * width)),
        states(arena.allocate(kForwardModes * (s.chunk_steps + 1) * 2 * width)), state(arena.allocate(2 * s.modes * width)),
        later(arena.allocate(2 * s.modes * width)) {}

  T* mode_states(int u) const { return states + u * (s.chunk_steps + 1) * 2 * width; }

  template <int count>
  void compute_states(int64_t m, int64_t steps) {
    Modes<T, count, driven> modes(row, m, state);
    for (int64_t k = 0; k < steps; ++k) {
      const Vector<T> input = load<T>(x + k * width);
#pragma GCC unroll 4
      for (int u = 0; u < count; ++u) {
        store<T>(mode_states(u) + 2 * k * width, modes.re[u]);
        store<T>(mode_states(u) + (2 * k + 1) * width, modes.im[u]);
        modes.step(u, input);
      }
    }
#pragma GCC unroll 4
    for (int u = 0; u < count; ++u) {
      store<T>(mode_states(u) + 2 * steps * width, modes.re[u]);
      store<T>(mode_states(u) + (2 * steps + 1) * width, modes.im[u]);
    }
  }

  static void add(T* to, const Vector<T>& value) { store<T>(to, load<T>(to) + value); }

  // Runs modes [m, m + count) backward through a chunk; mode m is `offset` in the states.
  template <int count>
  void run_modes(int64_t m, int offset, int64_t steps) {
    Vector<T> a_re[count], a_im[count], c_re[count], c_im[count], l_re[count], l_im[count];
    Vector<T> sum_a_re[count]{}, sum_a_im[count]{}, sum_c_re[count]{}, sum_c_im[count]{};
    [[maybe_unused]] Vector<T> b_re[count], b_im[count], sum_b_re[count]{}, sum_b_im[count]{};
#pragma GCC unroll 4
    for (int u = 0; u < count; ++u) {
      a_re[u] = row.real(s.a, m + u);
      a_im[u] = row.imaginary(s.a, m + u);
      c_re[u] = row.real(s.c, m + u);
      c_im[u] = row.imaginary(s.c, m + u);
      if constexpr (driven) {
        b_re[u] = row.real(s.b, m + u);
        b_im[u] = row.imaginary(s.b, m + u);
      }
      l_re[u] = load<T>(later + 2 * (m + u) * width);
      l_im[u] = load<T>(later + (2 * (m + u) + 1) * width);
    }
    for (int64_t k = steps - 1; k >= 0; --k) {
      const Vector<T> input = load<T>(x + k * width), grad = load<T>(g + k * width);
      Vector<T> grad_input = load<T>(grad_x + k * width);
#pragma GCC unroll 4
      for (int u = 0; u < count; ++u) {
        const T* const before = mode_states(offset + u) + 2 * k * width;
        const Vector<T> before_re = load<T>(before), before_im = load<T>(before + width);
        if constexpr (unit) {
          const Vector<T> re = grad + a_im[u] * l_im[u], im = -(a_im[u] * l_re[u]);
          l_re[u] = a_re[u] * l_re[u] + re;
          l_im[u] = a_re[u] * l_im[u] + im;
          grad_input += c_re[u] * l_re[u];
          grad_input += c_im[u] * l_im[u];
          sum_c_re[u] += input * l_re[u];
          sum_c_im[u] += input * l_im[u];
        } else {
          l_re[u] += c_re[u] * grad;
          l_im[u] -= c_im[u] * grad;
          if constexpr (driven) {
            grad_input += b_re[u] * l_re[u];
            grad_input += b_im[u] * l_im[u];
            sum_b_re[u] += input * l_re[u];
            sum_b_im[u] += input * l_im[u];
          } else {
            grad_input += l_re[u];
          }
          sum_c_re[u] += grad * load<T>(before + 2 * width);
          sum_c_im[u] -= grad * load<T>(before + 3 * width);
        }
        sum_a_re[u] += l_re[u] * before_re;
        sum_a_re[u] += l_im[u] * before_im;
        sum_a_im[u] += l_im[u] * before_re;
        sum_a_im[u] -= l_re[u] * before_im;
        if constexpr (!unit) {
          const Vector<T> re = a_im[u] * l_im[u], im = a_im[u] * l_re[u];
          l_re[u] = a_re[u] * l_re[u] + re;
          l_im[u] = a_re[u] * l_im[u] - im;
        }
      }
      store<T>(grad_x + k * width, grad_input);
    }
#pragma GCC unroll 4
    for (int u = 0; u < count; ++u) {
      store<T>(later + 2 * (m + u) * width, l_re[u]);
      store<T>(later + (2 * (m + u) + 1) * width, l_im[u]);
      add_sums(sums.a, m + u, sum_a_re[u], sum_a_im[u]);
      add_sums(sums.c, m + u, sum_c_re[u], sum_c_im[u]);
      if constexpr (driven) add_sums(sums.b, m + u, sum_b_re[u], sum_b_im[u]);
    }
  }

  void add_sums(T* to, int64_t m, const Vector<T>& real, const Vector<T>& imaginary) {
    T* const at = to + 2 * m * s.padded + row.first_channel;
    add(at, real);
    add(at + s.padded, imaginary);
  }

  template <int count>
  void run_group(int64_t m, int64_t steps) {
    compute_states<count>(m, steps);
    constexpr int together = count < kBackwardModes ? count : kBackwardModes;
    for (int u = 0; u < count; u += together) run_modes<together>(m + u, u, steps);
  }

  void run_chunk(int64_t begin, int64_t end) {
    const int64_t steps = end - begin;
    const T* const saved = row.saved(begin / s.chunk_steps);
    for (int64_t k = 0; k < 2 * s.modes; ++k) store<T>(state + k * width, load<T>(saved + k * s.padded));
    row.load_steps(s.inputs, begin, end, x);
    row.load_steps(s.grad_outputs, begin, end, g);
    const Vector<T> skip = s.skip == nullptr ? Vector<T>{} : load<T>(s.skip + row.first_channel);
    Vector<T> sum{};
    for (int64_t k = 0; k < steps * width; k += width) {
      const Vector<T> grad = load<T>(g + k);
      store<T>(grad_x + k, skip * grad);
      sum += load<T>(x + k) * grad;
    }
    add(sums.skip + row.first_channel, sum);
    int64_t m = 0;
    for (; m + kForwardModes <= s.modes; m += kForwardModes) run_group<kForwardModes>(m, steps);
    for (; m < s.modes; ++m) run_group<1>(m, steps);
    if (s.grad_inputs != nullptr) row.store_steps(grad_x, begin, end, s.grad_inputs);
  }

  void run() {
    row.load_state(s.grad_final, later);
    const int64_t chunks = (row.length + s.chunk_steps - 1) / s.chunk_steps;
    for (int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
      const int64_t begin = chunk * s.chunk_steps, end = begin + s.chunk_steps;
      run_chunk(begin, end < row.length ? end : row.length);
    }
    if (s.grad_inputs != nullptr) row.clear_padding(s.grad_inputs);
    if (s.grad_initial != nullptr) row.store_state(later, s.grad_initial);
  }
};

template <typename T, SSMForm form>
static void diagonal_ssm_row_backward(const SSMRow<T>& row, const DiagonalSSMGradients<T>& sums, Arena<T>& arena) {
  SSMBackward<T, form>(row, sums, arena).run();
}

template <typename T>
static void diagonal_ssm_backward(
    const DiagonalSSM<T>& s, int64_t row, int64_t block, const DiagonalSSMGradients<T>& sums, T* workspace) {
  Arena<T> arena{workspace};
  const SSMRow<T> place(s, row, block);
  if (s.b != nullptr) {
    diagonal_ssm_row_backward<T, SSMForm::driven>(place, sums, arena);
  } else if (s.is_unit()) {
    diagonal_ssm_row_backward<T, SSMForm::unit>(place, sums, arena);
  } else {
    diagonal_ssm_row_backward<T, SSMForm::undriven>(place, sums, arena);
  }
}

}  // namespace seqmem::SEQMEM_ISA
