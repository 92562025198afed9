// Backward loop of a selective scan: from the last chunk to the first, states are recomputed from those before the chunk.
#pragma once

#include "selective_scan_task.h"

namespace seqmem::SEQMEM_ISA {

// With g the gradient of h: g_t = dy_t c_t + f_{t+1} g_{t+1} with the factors f = 2^(d rate), and from it the gradients
//   b: sum over channels of g d u        c: sum over channels of dy h      a: sum over steps of f g h_before d
//   d: sum over states of f g h_before a + u s        u: skip dy + d s     with s: sum over states of g b
template <typename T>
class SelectiveScanBackward : SelectiveScanTask<T> {
  using Base = SelectiveScanTask<T>;
  using Base::b, Base::c, Base::chunk_size, Base::contracted, Base::first_channel, Base::inputs, Base::length, Base::padded,
      Base::row, Base::s, Base::states, Base::step_sizes, Base::width;
  // Sums over channels of a block are folded to so many vectors; lane l belongs to the state l modulo the number of states.
  static constexpr int folded = width >= kStateBlock ? 1 : kStateBlock / width;

 public:
  SelectiveScanBackward(const SelectiveScan<T>& scan, int64_t row, int64_t group, Arena<T>& arena)
      : Base(scan, row, group, arena), group_(group), grad_a_(arena.allocate(kGroupChannels * padded)),
        grad_channels_(arena.allocate(2 * kGroupChannels)), chunk_channels_(arena.allocate(2 * kGroupChannels)),
        grad_b_(arena.allocate(scan.chunk_steps * padded / kStateBlock * folded * width)),
        grad_c_(arena.allocate(scan.chunk_steps * padded / kStateBlock * folded * width)),
        factors_(arena.allocate(scan.chunk_steps * kStateBlock * width)),
        after_(arena.allocate((scan.chunk_steps + 1) * kStateBlock * width)), before_(arena.allocate(kStateBlock * width)),
        grad_contracted_(arena.allocate(chunk_size)), grad_driven_(arena.allocate(chunk_size)),
        grad_steps_(arena.allocate(chunk_size)), step_slopes_(arena.allocate(chunk_size)),
        gate_slopes_(arena.allocate(chunk_size)) {}

  void run() {
    Base::load_states(s.grad_final, states);
    std::memset(grad_a_, 0, kGroupChannels * padded * sizeof(T));
    std::memset(grad_channels_, 0, 2 * kGroupChannels * sizeof(T));
    clear_padding();
    for (int64_t chunk = (length + s.chunk_steps - 1) / s.chunk_steps - 1; chunk >= 0; --chunk) {
      const int64_t first_step = chunk * s.chunk_steps, rest = length - first_step;
      const int64_t count = rest < s.chunk_steps ? rest : s.chunk_steps;
      load_chunk(first_step, count);
      Base::for_each_vector([&](int64_t channel, int64_t, int64_t vector) { run_vector(chunk, count, channel, vector); });
      store_chunk(first_step, count);
      store_sums(grad_b_, first_step, count, s.grad_b);
      store_sums(grad_c_, first_step, count, s.grad_c);
    }
    Base::for_each_vector([&](int64_t channel, int64_t, int64_t vector) {
      const int64_t columns = s.padded_channels();
      store<T>(s.grad_skip + row * columns + channel, load<T>(grad_channels_ + vector * width));
      store<T>(s.grad_delta_bias + row * columns + channel, load<T>(grad_channels_ + kGroupChannels + vector * width));
      for (int64_t n = 0; n < padded; ++n) {
        store<T>(s.grad_a + (row * padded + n) * columns + channel, load<T>(grad_a_ + (vector * padded + n) * width));
      }
    });
    Base::store_states(states, s.grad_initial);
    finish_streams();
  }

 private:
  void clear_padding() const {
    const size_t bytes = Base::channel_count() * sizeof(T);
    for (int64_t t = length; t < s.steps; ++t) {
      const int64_t from = (row * s.steps + t) * s.channels + first_channel;
      std::memset(s.grad_inputs + from, 0, bytes);
      std::memset(s.grad_delta + from, 0, bytes);
      if (s.gate.data != nullptr) std::memset(s.grad_gate + from, 0, bytes);
    }
    const int64_t to = ((group_ * s.batch + row) * s.steps + length) * s.states, rest = (s.steps - length) * s.states;
    std::memset(s.grad_b + to, 0, rest * sizeof(T));
    std::memset(s.grad_c + to, 0, rest * sizeof(T));
  }

  void load_chunk(int64_t first_step, int64_t count) {
    Base::load_chunk(first_step, count);
    const int64_t sums = count * padded / kStateBlock * folded * width;
    std::memset(grad_b_, 0, sums * sizeof(T));
    std::memset(grad_c_, 0, sums * sizeof(T));
    for (int64_t t = 0; t < count; ++t) {
      const int64_t step = first_step + t;
      const T* const from = s.inputs.at(row, step);
      const T* const gate = s.gate.data == nullptr ? nullptr : s.gate.at(row, step);
      const T* const grad_outputs = s.grad_outputs.data == nullptr ? nullptr : s.grad_outputs.at(row, step);
      Base::for_each_vector([&](int64_t channel, int64_t lanes, int64_t vector) {
        const int64_t at = Base::place(vector, t);
        Vector<T> slope, dy = grad_outputs == nullptr ? Vector<T>{} : load_partial<T>(grad_outputs + channel, lanes);
        store<T>(inputs + at, load_partial<T>(from + channel, lanes));
        store<T>(step_sizes + at, Base::step_size(step, channel, lanes, slope));
        store<T>(step_slopes_ + at, slope);
        if (gate != nullptr) {
          const Vector<T> z = load_partial<T>(gate + channel, lanes), opened = sigmoid<T>(z);
          store<T>(gate_slopes_ + at, dy * (opened * (z * (T(1) - opened) + T(1))));
          dy = dy * (z * opened);
        }
        store<T>(grad_contracted_ + at, dy);
        store<T>(contracted + at, Vector<T>{});
        store<T>(grad_driven_ + at, Vector<T>{});
        store<T>(grad_steps_ + at, Vector<T>{});
      });
    }
  }

  void run_vector(int64_t chunk, int64_t count, int64_t channel, int64_t vector) {
    for (int64_t n = 0; n < padded; n += kStateBlock) {
      const T* const from = Base::saved(chunk, channel) + n * s.padded_channels();
      for (int j = 0; j < kStateBlock; ++j) {
        const Vector<T> h = load<T>(from + j * s.padded_channels());
        store<T>(before_ + j * width, h);
        store<T>(after_ + j * width, h);
      }
      const Steps<T>* const tensors[] = {&s.inputs, &s.delta, &s.gate, &s.grad_outputs};
      const auto ahead = Base::ahead(*tensors[n / kStateBlock % 4], (chunk - 1) * s.chunk_steps, channel);
      Base::template run_block<true>(vector, channel, n, count, before_, factors_, after_ + kStateBlock * width, ahead);
      run_block_backward(vector, channel, n, count);
    }
  }

  void run_block_backward(int64_t vector, int64_t channel, int64_t first_state, int64_t count) {
    T* const own = states + (vector * padded + first_state) * width;
    T* const last = after_ + count * kStateBlock * width;
    Vector<T> g[kStateBlock], h[kStateBlock], rate[kStateBlock], grad_a[kStateBlock];
#pragma GCC unroll 8
    for (int j = 0; j < kStateBlock; ++j) {
      g[j] = load<T>(own + j * width);
      h[j] = load<T>(last + j * width);
      rate[j] = load<T>(s.rates + channel + (first_state + j) * s.padded_channels());
      grad_a[j] = Vector<T>{};
    }
    for (int64_t t = count - 1; t >= 0; --t) {
      const int64_t at = Base::place(vector, t), state = t * padded + first_state;
      const Vector<T> d = load<T>(step_sizes + at), driven = d * load<T>(inputs + at), dy = load<T>(grad_contracted_ + at);
      Vector<T> driven_sum = load<T>(grad_driven_ + at), steps_sum = load<T>(grad_steps_ + at);
      Vector<T> b_terms[kStateBlock], c_terms[kStateBlock];
#pragma GCC unroll 8
      for (int j = 0; j < kStateBlock; ++j) {
        c_terms[j] = dy * h[j];
        g[j] += dy * c[state + j];
        b_terms[j] = driven * g[j];
        driven_sum += g[j] * b[state + j];
        g[j] = g[j] * load<T>(factors_ + (t * kStateBlock + j) * width);
        h[j] = load<T>(after_ + (t * kStateBlock + j) * width);
        const Vector<T> product = g[j] * h[j];
        steps_sum += product * rate[j];
        grad_a[j] += product * d;
      }
      store<T>(grad_driven_ + at, driven_sum);
      store<T>(grad_steps_ + at, steps_sum);
      add_folded(b_terms, grad_b_ + state / kStateBlock * folded * width);
      add_folded(c_terms, grad_c_ + state / kStateBlock * folded * width);
    }
    T* const sums = grad_a_ + (vector * padded + first_state) * width;
#pragma GCC unroll 8
    for (int j = 0; j < kStateBlock; ++j) {
      store<T>(own + j * width, g[j]);
      store<T>(sums + j * width, load<T>(sums + j * width) + grad_a[j]);
    }
  }

  // Each round adds the two halves of each vector, and puts the sums of two vectors into one.
  SEQMEM_INLINE void add_folded(Vector<T> (&terms)[kStateBlock], T* to) {
#pragma GCC unroll 8
    for (int half = kStateBlock / 2; half >= folded; half /= 2) {
#pragma GCC unroll 8
      for (int j = 0; j < half; ++j) {
        terms[j] = interleave<T, false>(terms[j], terms[j + half]) + interleave<T, true>(terms[j], terms[j + half]);
      }
    }
#pragma GCC unroll 8
    for (int j = 0; j < folded; ++j) store<T>(to + j * width, load<T>(to + j * width) + terms[j]);
  }

  // The gradients of a chunk.
  void store_chunk(int64_t first_step, int64_t count) {
    constexpr T ln_2 = T(0x1.62e42fefa39efp-1);  // the rates are in powers of two
    std::memset(chunk_channels_, 0, 2 * kGroupChannels * sizeof(T));
    for (int64_t t = 0; t < count; ++t) {
      const int64_t to = (row * s.steps + first_step + t) * s.channels;
      Base::for_each_vector([&](int64_t channel, int64_t lanes, int64_t vector) {
        const int64_t at = Base::place(vector, t);
        const Vector<T> u = load<T>(inputs + at), dy = load<T>(grad_contracted_ + at), sum = load<T>(grad_driven_ + at);
        const Vector<T> skip = load<T>(s.skip + channel);
        const Vector<T> grad_delta = (load<T>(grad_steps_ + at) * ln_2 + u * sum) * load<T>(step_slopes_ + at);
        Base::store_result(s.grad_inputs + to + channel, skip * dy + load<T>(step_sizes + at) * sum, lanes);
        Base::store_result(s.grad_delta + to + channel, grad_delta, lanes);
        add(chunk_channels_ + vector * width, dy * u);
        add(chunk_channels_ + kGroupChannels + vector * width, grad_delta);
        if (s.gate.data == nullptr) return;
        const Vector<T> y = load<T>(contracted + at) + skip * u;
        Base::store_result(s.grad_gate + to + channel, load<T>(gate_slopes_ + at) * y, lanes);
      });
    }
    for (int64_t k = 0; k < 2 * kGroupChannels; k += width) add(grad_channels_ + k, load<T>(chunk_channels_ + k));
  }

  SEQMEM_INLINE void add(T* to, const Vector<T>& value) { store<T>(to, load<T>(to) + value); }

  // Stores the sums over the channels of (count, blocks, folded, W).
  void store_sums(const T* from, int64_t first_step, int64_t count, T* to) const {
    to += ((group_ * s.batch + row) * s.steps + first_step) * s.states;
    for (int64_t t = 0; t < count; ++t, to += s.states) {
      for (int64_t n = 0; n < padded; n += kStateBlock, from += folded * width) {
        T sums[kStateBlock] = {};
        for (int lane = 0; lane < width; ++lane) {
          for (int j = 0; j < folded; ++j) sums[lane % (kStateBlock / folded) * folded + j] += from[j * width + lane];
        }
        for (int64_t j = 0; j < kStateBlock && n + j < s.states; ++j) to[n + j] = sums[j];
      }
    }
  }

  const int64_t group_;
  T* const grad_a_;     // (vectors, padded states, W)
  T* const grad_channels_;   // (2, channels of the group): of skip and delta_bias
  T* const chunk_channels_;  // the same of a chunk: sums of sums are more precise
  T* const grad_b_;  // (steps of a chunk, blocks, folded, W), as the next
  T* const grad_c_;
  T* const factors_;          // (steps of a chunk, block, W)
  T* const after_;            // the same of the states before the first step and after each
  T* const before_;           // (block, W)
  T* const grad_contracted_;  // arrays of a chunk, as the next
  T* const grad_driven_;
  T* const grad_steps_;
  T* const step_slopes_;  // of the step sizes with respect to delta
  T* const gate_slopes_;  // gradients of the outputs times the derivative of SiLU(gate)
};

}  // namespace seqmem::SEQMEM_ISA
