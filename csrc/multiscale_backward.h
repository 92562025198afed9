// The way back through a multiscale stack: a group of rows goes back through all layers of a chunk of steps.
#pragma once

#include <cstdint>
#include <cstring>

#include "multiscale_group.h"
#include "sequence_math.h"

namespace seqmem::SEQMEM_ISA {

// Where what a thread sums of a layer's gradients starts.
template <typename T>
static LayerTotals layer_totals(const Multiscale<T>& s, int64_t layer) {
  LayerTotals totals(s.layers[0], 0);
  for (int64_t l = 1; l <= layer; ++l) totals = LayerTotals(s.layers[l], totals.end);
  return totals;
}

// The gradients of what a step gives lie beside those of what it read of the step before; steps take turns in which is which.
template <typename T>
class MultiscaleBackward : MultiscaleGroup<T> {
  using Base = MultiscaleGroup<T>;
  using Base::active, Base::at, Base::counts, Base::first, Base::order, Base::rows, Base::s, Base::valid, Base::widest,
      Base::width;

 public:
  MultiscaleBackward(
      const Multiscale<T>& sequence, int64_t first_row, int64_t count, Arena<T>& arena, T* totals, Collected<T>* collected)
      : Base(sequence, first_row, count, arena),
        hidden_{arena.take(count * sequence.places), arena.take(count * sequence.places)},
        boundary_{arena.take(count * sequence.count), arena.take(count * sequence.count)},
        memory_(arena.take(count * sequence.places)), detected_(arena.take(count)), dots_(arena.take(count * width)),
        gates_(arena.take(kMultiscaleGates * count * widest)), sums_(arena.take(count * kPanel<T>)),
        zeros_(arena.take(kPanel<T>)), scratch_(arena.take((2 * kMultiscaleGates + 2) * widest)),
        positions_(reinterpret_cast<int64_t*>(arena.take(sequence.count * kBranches * int64_t(sizeof(int64_t) / sizeof(float))))),
        totals_(totals), collected_(collected) {}

  void run(int64_t begin, int64_t end) {
    std::memset(zeros_, 0, kPanel<T> * sizeof(T));
    if (end == s.steps) start();
    count_branches(begin, end);
    for (int64_t t = end - 1; t >= begin; --t) {
      enter(t);
      for (int64_t l = s.count - 1; l >= 0; --l) retreat(t, l);
    }
    if (begin > 0) return;
    Base::give_units(hidden_[before(0)], s.grad_hidden_before);
    Base::give_units(memory_, s.grad_memory_before);
    std::memcpy(s.grad_boundary_before + first * s.count, boundary_[before(0)], rows * s.count * sizeof(T));
  }

 private:
  static int now(int64_t t) { return int(t & 1); }
  static int before(int64_t t) { return 1 - now(t); }

  const T* saved(int64_t row, int64_t t) const { return s.saved + (t * s.batch + first + row) * s.kept; }
  const T* output(int64_t row, int64_t t) const { return s.outputs + ((first + row) * s.steps + t) * s.units; }
  T* grad_projected(int64_t row, int64_t t) const { return s.grad_projected + ((first + row) * s.steps + t) * s.width; }
  const T* hidden_before(int64_t row, int64_t t) const {
    return t == 0 ? s.hidden_before + (first + row) * s.units : output(row, t - 1);
  }
  T found(int64_t row, int64_t t, int64_t layer) const { return s.boundaries[((first + row) * s.steps + t) * s.count + layer]; }
  T own(int64_t row, int64_t t, int64_t layer) const {
    return t == 0 ? s.boundary_before[(first + row) * s.count + layer] : found(row, t - 1, layer);
  }
  T fed(int64_t row, int64_t t, int64_t layer) const { return layer == 0 ? T(1) : found(row, t, layer - 1); }

  void start() {
    T *const hidden = hidden_[now(s.steps - 1)], *const boundary = boundary_[now(s.steps - 1)];
    std::memset(hidden, 0, rows * s.places * sizeof(T));
    std::memset(memory_, 0, rows * s.places * sizeof(T));
    std::memset(boundary, 0, rows * s.count * sizeof(T));
    if (s.grad_hidden_after != nullptr) Base::take_units(s.grad_hidden_after, hidden);
    if (s.grad_memory_after != nullptr) Base::take_units(s.grad_memory_after, memory_);
    if (s.grad_boundary_after != nullptr) {
      std::memcpy(boundary, s.grad_boundary_after + first * s.count, rows * s.count * sizeof(T));
    }
  }

  void count_branches(int64_t begin, int64_t end) {
    for (int64_t l = 0; l < s.count; ++l) {
      int64_t count[kBranches + 1] = {};
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t t = begin; t < end && Base::is_valid(r, t); ++t) {
          ++count[Base::branch(s.layers[l], own(r, t, l), fed(r, t, l))];
        }
      }
      int64_t start = 0;
      for (int b = 0; b < kBranches; ++b) {
        collected_[l].count[b] = count[b];
        positions_[l * kBranches + b] = start;
        start += count[b];
      }
    }
  }

  // What flows into a step from its outputs; a padded one passes on what flows into it.
  void enter(int64_t t) {
    T *const hidden = hidden_[now(t)], *const boundary = boundary_[now(t)];
    for (int64_t r = 0; r < rows; ++r) {
      if (!Base::is_valid(r, t)) {
        std::memcpy(hidden_[before(t)] + r * s.places, hidden + r * s.places, s.places * sizeof(T));
        std::memcpy(boundary_[before(t)] + r * s.count, boundary + r * s.count, s.count * sizeof(T));
        if (s.grad_projected != nullptr) std::memset(grad_projected(r, t), 0, s.width * sizeof(T));
        continue;
      }
      std::memset(hidden_[before(t)] + r * s.places, 0, s.places * sizeof(T));
      std::memset(boundary_[before(t)] + r * s.count, 0, s.count * sizeof(T));
      const int64_t step = (first + r) * s.steps + t;
      if (s.grad_outputs != nullptr) {
        for (int64_t l = 0; l < s.count; ++l) {
          const Layer& y = s.layers[l];
          add_row(hidden + r * s.places + y.place, T(1), s.grad_outputs + step * s.units + y.unit, y.size);
        }
      }
      if (s.grad_boundaries != nullptr) {
        for (int64_t l = 0; l < s.count; ++l) boundary[r * s.count + l] += s.grad_boundaries[step * s.count + l];
      }
    }
  }

  // to += times from, the last vector with zeros behind `count`.
  SEQMEM_INLINE void add_row(T* to, T times, const T* from, int64_t count) {
    for (int64_t u = 0; u < count; u += width) store<T>(to + u, load<T>(to + u) + times * load_some<T>(from + u, count - u));
  }
  SEQMEM_INLINE void add(T* to, const Vector<T>& value) { store<T>(to, load<T>(to) + value); }

  void retreat(int64_t t, int64_t l) {
    const Layer& y = s.layers[l];
    const PackedLayer<T> packed = packed_layer(s, l, true);
    const LayerTotals totals = layer_totals(s, l);
    Base::sort(y, t, [&](int64_t r) { return own(r, t, l); }, [&](int64_t r) { return fed(r, t, l); });
    for (int64_t i = 0; i < valid; ++i) {
      const int64_t r = order[i];
      const T flow = boundary_[now(t)][r * s.count + l];
      if (y.detects) {
        detected_[r] = flow * saved(r, t)[(kMultiscaleGates + 1) * s.places + l * kNumbers + kMultiscaleGates];
        through_detector(packed, totals, t, l, r);
      } else {
        boundary_[before(t)][r * s.count + l] += flow;
      }
    }
    const Blocks blocks(active, kMaxRows<T>);
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int r = 0; r < blocks.rows(b); ++r) through_gates(packed, totals, blocks, t, l, b, r);
    }
    for (int64_t i = active; i < valid; ++i) {
      const int64_t start = order[i] * s.places + y.place;
      add_row(hidden_[before(t)] + start, T(1), hidden_[now(t)] + start, y.padded());
    }
    if (active > 0) through_products(packed, blocks, t, l);
  }

  void through_detector(const PackedLayer<T>& packed, const LayerTotals& totals, int64_t t, int64_t l, int64_t r) {
    const Layer& y = s.layers[l];
    const T flow = detected_[r];
    if (l == 0 && s.grad_projected != nullptr) grad_projected(r, t)[kMultiscaleGates * y.size] = flow;
    if (flow == T(0)) return;
    totals_[totals.detector_bias] += flow;
    const T* const weights = s.packed;
    const T* const read = hidden_before(r, t);
    add_row(hidden_[before(t)] + r * s.places + y.place, flow, weights + packed.detector[from_itself], y.size);
    add_row(totals_ + totals.detector[from_itself], flow, read + y.unit, y.size);
    if (y.above > 0) {
      const Layer& z = s.layers[l + 1];
      const T open = own(r, t, l), *const w = weights + packed.detector[from_above];
      boundary_[before(t)][r * s.count + l] += flow * dot<T>(w, read + z.unit, z.size);
      if (open != T(0)) {
        add_row(hidden_[before(t)] + r * s.places + z.place, flow * open, w, z.size);
        add_row(totals_ + totals.detector[from_above], flow * open, read + z.unit, z.size);
      }
    }
    if (l > 0) {
      const Layer& z = s.layers[l - 1];
      const T open = fed(r, t, l), *const w = weights + packed.detector[from_below];
      const T* const lower = output(r, t) + z.unit;
      boundary_[now(t)][r * s.count + l - 1] += flow * dot<T>(w, lower, z.size);
      if (open != T(0)) {
        add_row(hidden_[now(t)] + r * s.places + z.place, flow * open, w, z.size);
        add_row(totals_ + totals.detector[from_below], flow * open, lower, z.size);
      }
    }
  }

  // From h and c of a row that did not copy to the gates' sums and c before.
  void through_gates(
      const PackedLayer<T>& packed, const LayerTotals& totals, const Blocks& blocks, int64_t t, int64_t l, int64_t b, int r) {
    const Layer& y = s.layers[l];
    const int64_t i = blocks.start(b) + r, row = order[i], size = y.size, padded = y.padded();
    const T open = own(row, t, l), below = fed(row, t, l), updated = (T(1) - open) * below, copied = T(1) - open - updated;
    const Vector<T> last = first_lanes<T>(size % width == 0 ? width : size % width);
    const auto inside = [&](int64_t u) { return u + width <= size ? broadcast<T>(T(1)) : last; };
    const T *const kept = saved(row, t) + (kMultiscaleGates + 1) * y.place, *const c = kept + kMultiscaleGates * padded;
    const T* const numbers = saved(row, t) + (kMultiscaleGates + 1) * s.places + l * kNumbers;
    const T* const c_before = t == 0 ? s.memory_before + (first + row) * s.units + y.unit
                                     : saved(row, t - 1) + (kMultiscaleGates + 1) * y.place + kMultiscaleGates * padded;
    const T* const h_before = hidden_before(row, t) + y.unit;
    const T *const bias = s.packed + packed.bias, *const gain = s.packed + packed.gain;
    const bool normalized = y.gain >= 0;
    T* const dh = hidden_[now(t)] + row * s.places + y.place;
    T* const dh_before = hidden_[before(t)] + row * s.places + y.place;
    T* const dc = memory_ + row * s.places + y.place;
    T *const values = scratch_, *const slopes = scratch_ + kMultiscaleGates * widest;
    T *const squashed = scratch_ + 2 * kMultiscaleGates * widest, *const flows = squashed + widest;

    for (int64_t u = 0; u < size; u += width) {
      for (int gate = 0; gate < kMultiscaleGates; ++gate) {
        Vector<T> a = load<T>(kept + gate * padded + u);
        if (normalized) a = a * load<T>(gain + gate * padded + u);
        a += load<T>(bias + gate * padded + u);
        store<T>(values + gate * widest + u, gate == 3 ? tanh<T>(a) : sigmoid<T>(a));
      }
    }
    through_memory_norm(packed, totals, y, c, last, dh, dc, T(1) - copied, values + 2 * widest, squashed, flows);
    Vector<T> to_copied{}, to_updated{};
    for (int64_t u = 0; u < size; u += width) {
      const Vector<T> f = load<T>(values + u), in = load<T>(values + widest + u), o = load<T>(values + 2 * widest + u),
                      g = load<T>(values + 3 * widest + u);
      const Vector<T> flow = load<T>(flows + u), before_c = load_some<T>(c_before + u, size - u), out = load<T>(dh + u);
      const Vector<T> tanh_c = load<T>(squashed + u);
      if (s.soft) {
        to_copied += flow * (before_c - in * g) + out * (load_some<T>(h_before + u, size - u) - o * tanh_c);
        to_updated += flow * f * before_c;
      }
      if (copied != T(0)) add(dh_before + u, copied * out);
      store<T>(dc + u, (copied + updated * f) * flow);
      store<T>(slopes + u, updated * flow * before_c * f * (T(1) - f));
      store<T>(slopes + widest + u, (T(1) - copied) * flow * g * in * (T(1) - in));
      store<T>(slopes + 2 * widest + u, (T(1) - copied) * out * tanh_c * o * (T(1) - o));
      store<T>(slopes + 3 * widest + u, (T(1) - copied) * flow * in * (T(1) - g * g));
    }
    if (s.soft) {
      const T copied_flow = sum_of<T>(to_copied), updated_flow = sum_of<T>(to_updated);
      boundary_[before(t)][row * s.count + l] -= below * updated_flow + (T(1) - below) * copied_flow;
      if (l > 0) boundary_[now(t)][row * s.count + l - 1] += (T(1) - open) * (updated_flow - copied_flow);
    }
    const int branch = i < counts[reads_above] ? reads_above : i < counts[reads_above] + counts[reads_both] ? reads_both : reads_below;
    const int64_t position = positions_[l * kBranches + branch]++;
    T* const collected = collected_[l].gradients + position * kMultiscaleGates * size;
    T* const to_input = l == 0 && s.grad_projected != nullptr ? grad_projected(row, t) : nullptr;
    for (int gate = 0; gate < kMultiscaleGates; ++gate) {
      T* const slope = slopes + gate * widest;
      const T* const normal = kept + gate * padded;
      Vector<T> sum{}, product{};
      for (int64_t u = 0; u < size; u += width) {
        Vector<T> d = load<T>(slope + u);
        add(totals_ + totals.bias + gate * padded + u, d);
        if (!normalized) continue;
        const Vector<T> x = load<T>(normal + u);
        add(totals_ + totals.gain + gate * padded + u, d * x);
        d = d * load<T>(gain + gate * padded + u);
        sum += d;
        product += d * x;
        store<T>(slope + u, d);
      }
      const T mean = sum_of<T>(sum) / T(size), along = sum_of<T>(product) / T(size), scale = numbers[gate];
      for (int64_t u = 0; u < size; u += width) {
        Vector<T> d = load<T>(slope + u);
        if (normalized) d = scale * (d - mean - load<T>(normal + u) * along) * inside(u);
        store<T>(gates_ + gate * rows * widest + at(blocks, size, b, r, u), d);
        store_some<T>(collected + gate * size + u, d, size - u);
        if (to_input != nullptr) store_some<T>(to_input + gate * size + u, d, size - u);
      }
    }
    T* const reads = collected_[l].reads + position * y.reads();
    std::memcpy(reads, h_before, size * sizeof(T));
    if (branch != reads_below && y.above > 0) {
      copy_times(reads + size, open, hidden_before(row, t) + s.layers[l + 1].unit, y.above);
    }
    if (branch != reads_above && l > 0) {
      copy_times(reads + size + y.above, below, output(row, t) + s.layers[l - 1].unit, y.below);
    }
  }

  static void copy_times(T* to, T times, const T* from, int64_t count) {
    for (int64_t u = 0; u < count; ++u) to[u] = times * from[u];
  }

  // tanh of c, normalised or not, as `squashed`, and the gradient of c as `flows`: what comes by way of h and what comes by c.
  void through_memory_norm(
      const PackedLayer<T>& packed, const LayerTotals& totals, const Layer& y, const T* c, const Vector<T>& last, const T* dh,
      const T* dc, T share, const T* o, T* squashed, T* flows) {
    if (y.memory_gain < 0) {
      for (int64_t u = 0; u < y.size; u += width) {
        const Vector<T> value = tanh<T>(load<T>(c + u));
        store<T>(squashed + u, value);
        store<T>(flows + u, load<T>(dc + u) + share * load<T>(dh + u) * load<T>(o + u) * (T(1) - value * value));
      }
      return;
    }
    const Moments<T> moments(c, y.size, last);
    const T *const gain = s.packed + packed.memory_gain, *const bias = s.packed + packed.memory_bias;
    Vector<T> sum{}, product{};
    for (int64_t u = 0; u < y.size; u += width) {
      const Vector<T> x = (load<T>(c + u) - moments.mean) * moments.scale;
      const Vector<T> value = tanh<T>(x * load<T>(gain + u) + load<T>(bias + u));
      store<T>(squashed + u, value);
      Vector<T> d = share * load<T>(dh + u) * load<T>(o + u) * (T(1) - value * value);
      add(totals_ + totals.memory_bias + u, d);
      add(totals_ + totals.memory_gain + u, d * x);
      d = d * load<T>(gain + u);
      sum += d;
      product += d * x;
      store<T>(flows + u, d);
    }
    const T mean = sum_of<T>(sum) / T(y.size), along = sum_of<T>(product) / T(y.size);
    for (int64_t u = 0; u < y.size; u += width) {
      const Vector<T> x = (load<T>(c + u) - moments.mean) * moments.scale;
      const Vector<T> d = moments.scale * (load<T>(flows + u) - mean - x * along);
      store<T>(flows + u, load<T>(dc + u) + d * (u + width <= y.size ? broadcast<T>(T(1)) : last));
    }
  }

  // From the gates' sums of the active rows to what they were made of.
  void through_products(const PackedLayer<T>& packed, const Blocks& blocks, int64_t t, int64_t l) {
    const Layer& y = s.layers[l];
    Operand<T> operands[kMultiscaleGates];
    for (int gate = 0; gate < kMultiscaleGates; ++gate) operands[gate] = {gates_ + gate * rows * widest, Order::by_rows, y.size};
    for (int part = 0; part < kParts; ++part) {
      const int64_t size = part_size(y, part), read = part == from_itself ? l : part == from_above ? l + 1 : l - 1;
      if (size == 0) continue;
      const Layer& z = s.layers[read];
      T* const target = hidden_[part == from_below ? now(t) : before(t)] + z.place;
      std::memset(dots_, 0, active * width * sizeof(T));
      const T* w = s.packed + packed.weights[part];
      for (int64_t column = 0; column < size; column += kPanel<T>, w += kMultiscaleGates * y.size * kPanel<T>) {
        multiply<T>(blocks, operands, kMultiscaleGates, size - column, w, zeros_, sums_);
        for (int64_t i = 0; i < active; ++i) {
          const int64_t row = order[i];
          const T open = part == from_itself ? T(1) : part == from_above ? own(row, t, l) : fed(row, t, l);
          const T* const numbers = (part == from_below ? output(row, t) : hidden_before(row, t)) + z.unit;
          for (int64_t k = column; k < column + kPanel<T> && k < size; k += width) {
            const Vector<T> d = load<T>(sums_ + i * kPanel<T> + k - column);
            if (open != T(0)) add(target + row * s.places + k, open * d);
            if (part != from_itself) add(dots_ + i * width, d * load_some<T>(numbers + k, size - k));
          }
        }
      }
      if (part == from_itself) continue;
      for (int64_t i = 0; i < active; ++i) {
        T* const boundary = boundary_[part == from_below ? now(t) : before(t)] + order[i] * s.count;
        boundary[part == from_below ? l - 1 : l] += sum_of<T>(load<T>(dots_ + i * width));
      }
    }
  }

  T* const hidden_[2];    // (rows, places)
  T* const boundary_[2];  // (rows, L)
  T* const memory_;
  T* const detected_;  // (rows,)
  T* const dots_;      // (rows, W)
  T* const gates_;     // an operand for each gate
  T* const sums_;
  T* const zeros_;
  T* const scratch_;
  int64_t* const positions_;  // (L, kBranches): where the next row collected goes
  T* const totals_;
  Collected<T>* const collected_;
};

}  // namespace seqmem::SEQMEM_ISA
