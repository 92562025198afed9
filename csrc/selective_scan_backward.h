// Backward loop of a selective scan: from the last chunk to the first, states are recomputed from those before the chunk.
#pragma once

#include "selective_scan_sums.h"
#include "selective_scan_task.h"

namespace seqmem::SEQMEM_ISA {

// With g the gradient of h: g_t = dy_t c_t + f_{t+1} g_{t+1} with the factors f = exp(d a), and from it the gradients
//   b: sum over channels of g d u        c: sum over channels of dy h      a: sum over steps of f g h_before d
//   d: sum over states of f g h_before a + u s        u: skip dy + d s     with s: sum over states of g b
template <typename T>
class SelectiveScanBackward : SelectiveScanTask<T> {
  using Base = SelectiveScanTask<T>;
  using typename Base::Chunk, typename Base::Strip;
  using Base::b, Base::c, Base::first_channel, Base::kept_size, Base::length, Base::padded, Base::row, Base::row_size,
      Base::rows, Base::s, Base::states, Base::width;
  template <int vectors>
  using Block = typename Base::template Block<vectors>;

 public:
  SelectiveScanBackward(const SelectiveScan<T>& scan, int64_t row, int64_t group, Arena<T>& arena)
      : Base(scan, row, group, arena), group_(group), sums_size_(2 * padded / kStateBlock * kFolded<T> * width),
        grad_a_(arena.allocate(scan.group_channels * padded)), grad_channels_(arena.allocate(2 * scan.group_channels)),
        sums_(arena.allocate(scan.chunk_steps * sums_size_)), kept_(arena.allocate((scan.chunk_steps + 1) * kept_size)) {}

  void run() {
    Base::load_states(s.grad_final, states);
    std::memset(grad_a_, 0, s.group_channels * padded * sizeof(T));
    std::memset(grad_channels_, 0, 2 * s.group_channels * sizeof(T));
    if (padded == 0) std::memset(rows, 0, s.chunk_steps * row_size * sizeof(T));  // sums over states that no block sets
    clear_padding();
    for (int64_t index = (length + s.chunk_steps - 1) / s.chunk_steps - 1; index >= 0; --index) {
      const Chunk chunk = Base::chunk_at(index);
      Base::load_chunk(chunk, index - 1);
      Base::for_each_strip([&](auto vectors, const Strip& strip) { run_strip<vectors.value>(chunk, strip); });
      store_sums(chunk, 0, s.grad_b);
      store_sums(chunk, 1, s.grad_c);
    }
    store_channels();
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

  template <int vectors>
  void run_strip(const Chunk& chunk, const Strip& strip) {
    Base::template for_each_span<vectors>(chunk, strip, [&](auto span) { this->template load_steps<true>(span); });
    Base::template for_each_span<vectors>(chunk, strip, [&](auto span) { load_gradients(span); });
    const Steps<T>* const read[] = {&s.inputs, &s.delta, &s.gate, &s.grad_outputs};
    for (int64_t n = 0; n < padded; n += kStateBlock) {
      const int64_t index = n / kStateBlock, columns = s.padded_channels();
      const auto ahead = Base::template ahead<vectors>(index < 4 ? read[index] : nullptr, chunk, strip, chunk.index - 1);
      const T* const saved = Base::saved(chunk.index, strip.channel) + n * columns;
      for (int k = 0; chunk.index > 0 && k < vectors * kStateBlock; ++k) {
        __builtin_prefetch(saved + (k / vectors - padded) * columns + k % vectors * width);
      }
      Block<vectors> h;
      h.load_from(saved, width, columns);
      Base::template run_block<vectors, true>(h, chunk.count, strip, n, ahead, kept_);
      run_block_backward<vectors>(chunk.count, strip, n);
    }
    store_strip<vectors>(chunk, strip);
  }

  // Gradients of the outputs times SiLU(gate), and times its derivative.
  template <typename Span>
  inline __attribute__((always_inline)) void load_gradients(Span span) const {
    Vector<T> dy[Span::size] = {}, z[Span::size], opened[Span::size];
    if (s.grad_outputs.data != nullptr) Base::load_span(s.grad_outputs, span, dy);
    if (s.gate.data != nullptr) {
      Base::load_span(s.gate, span, z);
      opening<T, Span::size>(z, opened);
#pragma GCC unroll 8
      for (int k = 0; k < Span::size; ++k) {
        const Vector<T> silu = z[k] * opened[k];
        z[k] = dy[k] * (silu * (T(1) - opened[k]) + opened[k]);
        dy[k] = dy[k] * silu;
      }
      Base::store_field(Base::gate_slopes, span, z);
    }
    Base::store_field(Base::grad_contracted, span, dy);
  }

  // Whether sums already have terms: those over states of earlier blocks, and those over channels of earlier strips.
  struct Adds {
    bool to_steps, to_channels;
  };

  // Steps back of a block of states of a strip.
  template <int vectors>
  void run_block_backward(int64_t count, const Strip& strip, int64_t first_state) {
    constexpr T ln_2 = T(0x1.62e42fefa39efp-1);  // the rates are in powers of two
    const int64_t place = (strip.vector * padded + first_state) * width, next_vector = padded * width;
    Block<vectors> g, grad_a = {}, rate = Base::template rates<vectors>(strip, first_state);
    g.load_from(states + place, next_vector, width);
    alignas(64) T a[vectors * kStateBlock * width];  // in memory: the registers are full
    for (int k = 0; k < vectors * kStateBlock; ++k) store<T>(a + k * width, rate.of[k / kStateBlock][k % kStateBlock] * ln_2);
    // Local, since stores might change members, as far as the compiler knows.
    const int64_t next_state = padded, next_sums = sums_size_, last = count - 1;
    const T *b_t = b + last * next_state + first_state, *c_t = c + last * next_state + first_state;
    const T* kept = kept_ + last * kept_size;
    T* of_step = rows + last * row_size;
    T* sums = sums_ + last * next_sums + first_state / kStateBlock * 2 * kFolded<T> * width;
    const Adds adds{first_state > 0, strip.vector > 0};
    for (int64_t t = last; t >= 0; --t) {
      step_back<vectors>(g, grad_a, a, adds, of_step, kept, b_t, c_t, sums);
      b_t -= next_state;
      c_t -= next_state;
      kept -= kept_size;
      of_step -= row_size;
      sums -= next_sums;
    }
    g.store_to(states + place, next_vector, width);
    grad_a.add_to(grad_a_ + place, next_vector, width);  // sums of sums are more precise
  }

  // The terms of b and c are added up over the vectors before they are folded.
  template <int vectors>
  SEQMEM_INLINE void step_back(
      Block<vectors>& gradient, Block<vectors>& grad_a, const T* a, Adds adds, T* of_step, const T* kept, const T* b,
      const T* c, T* sums) {
    constexpr int next_field = Base::strip_vectors * width;
    Vector<T> b_terms[kStateBlock], c_terms[kStateBlock];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) {
      T* const of_vector = of_step + v * width;
      const T *const factors = kept + 2 * v * kStateBlock * width, *const before = factors + kStateBlock * width;
      const Vector<T> d = load<T>(of_vector + Base::step_sizes * next_field);
      const Vector<T> driven = load<T>(of_vector + Base::driven * next_field);
      const Vector<T> dy = load<T>(of_vector + Base::grad_contracted * next_field);
      Vector<T> driven_sum{}, steps_sum{};
      if (adds.to_steps) {
        driven_sum = load<T>(of_vector + Base::grad_driven * next_field);
        steps_sum = load<T>(of_vector + Base::grad_steps * next_field);
      }
#pragma GCC unroll 8
      for (int j = 0; j < kStateBlock; ++j) {
        Vector<T>& g = gradient.of[v][j];
        const Vector<T> h = load<T>(before + kept_size + j * width);
        g += dy * c[j];
        c_terms[j] = v == 0 ? dy * h : c_terms[j] + dy * h;
        b_terms[j] = v == 0 ? driven * g : b_terms[j] + driven * g;
        driven_sum += g * b[j];
        g = g * load<T>(factors + j * width);
        const Vector<T> product = g * load<T>(before + j * width);
        steps_sum += product * load<T>(a + (v * kStateBlock + j) * width);
        grad_a.of[v][j] += product * d;
      }
      store<T>(of_vector + Base::grad_driven * next_field, driven_sum);
      store<T>(of_vector + Base::grad_steps * next_field, steps_sum);
    }
    add_folded<T>(b_terms, adds.to_channels, sums);
    add_folded<T>(c_terms, adds.to_channels, sums + kFolded<T> * width);
  }

  // Stores the gradients of a strip.
  template <int vectors>
  void store_strip(const Chunk& chunk, const Strip& strip) {
    Vector<T> grad_skip[vectors] = {}, grad_bias[vectors] = {};  // sums of sums are more precise
    Base::template for_each_span<vectors>(chunk, strip, [&](auto span) { store_steps(span, grad_skip, grad_bias); });
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) {
      T *const of_skip = grad_channels_ + (strip.vector + v) * width, *const of_bias = of_skip + s.group_channels;
      store<T>(of_skip, load<T>(of_skip) + grad_skip[v]);
      store<T>(of_bias, load<T>(of_bias) + grad_bias[v]);
    }
  }

  template <typename Span, int vectors>
  inline __attribute__((always_inline)) void store_steps(
      Span span, Vector<T> (&grad_skip)[vectors], Vector<T> (&grad_bias)[vectors]) const {
    constexpr int size = Span::size;
    Vector<T> u[size], skip[size], dy[size], sum[size], d[size], slope[size], grad_delta[size];
    Base::load_span(s.inputs, span, u);
    Base::load_channels(s.skip, span, skip);
    Base::load_field(Base::grad_contracted, span, dy);
    Base::load_field(Base::grad_driven, span, sum);
    Base::load_field(Base::grad_steps, span, grad_delta);
    Base::load_field(Base::step_slopes, span, slope);
    Base::load_field(Base::step_sizes, span, d);
#pragma GCC unroll 8
    for (int k = 0; k < size; ++k) {
      grad_delta[k] = (grad_delta[k] + u[k] * sum[k]) * slope[k];
      grad_skip[k % vectors] += dy[k] * u[k];
      grad_bias[k % vectors] += grad_delta[k];
      dy[k] = skip[k] * dy[k] + d[k] * sum[k];
    }
    Base::store_span(s.grad_inputs, span, dy);
    Base::store_span(s.grad_delta, span, grad_delta);
    if (s.gate.data == nullptr) return;
    Base::load_field(Base::contracted, span, sum);
    Base::load_field(Base::gate_slopes, span, slope);
#pragma GCC unroll 8
    for (int k = 0; k < size; ++k) sum[k] = sum[k] * slope[k];
    Base::store_span(s.grad_gate, span, sum);
  }

  // Stores the sums over the channels for b or c: part 0 or 1.
  void store_sums(const Chunk& chunk, int part, T* to) const {
    const T* from = sums_ + part * kFolded<T> * width;
    to += ((group_ * s.batch + row) * s.steps + chunk.first_step) * s.states;
    for (int64_t t = 0; t < chunk.count; ++t, to += s.states) {
      for (int64_t n = 0; n < padded; n += kStateBlock, from += 2 * kFolded<T> * width) {
        T sums[kStateBlock];
        sum_folded<T>(from, sums);
        if (n + kStateBlock <= s.states) {
          std::memcpy(to + n, sums, sizeof sums);
        } else {
          for (int64_t j = 0; n + j < s.states; ++j) to[n + j] = sums[j];
        }
      }
    }
  }

  // Stores the sums over the steps.
  void store_channels() const {
    const int64_t columns = s.padded_channels();
    for (int64_t vector = 0, channel = first_channel; channel < Base::end_channel(); ++vector, channel += width) {
      store<T>(s.grad_skip + row * columns + channel, load<T>(grad_channels_ + vector * width));
      store<T>(s.grad_delta_bias + row * columns + channel, load<T>(grad_channels_ + s.group_channels + vector * width));
      for (int64_t n = 0; n < padded; ++n) {
        store<T>(s.grad_a + (row * padded + n) * columns + channel, load<T>(grad_a_ + (vector * padded + n) * width));
      }
    }
  }

  const int64_t group_, sums_size_;
  T* const grad_a_;         // (vectors, padded states, W)
  T* const grad_channels_;  // (2, channels of the group): of skip and delta_bias
  T* const sums_;           // (steps of a chunk, blocks of states, 2, folded, W): of b and c over the channels
  T* const kept_;           // (steps of a chunk + 1, kept size)
};

}  // namespace seqmem::SEQMEM_ISA
