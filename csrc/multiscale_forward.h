// Forward multiscale loop: runs a group of rows through all layers and steps.
#pragma once

#include <cstdint>
#include <cstring>

#include "multiscale_group.h"
#include "sequence_math.h"

namespace seqmem::SEQMEM_ISA {

template <typename T>
class MultiscaleForward : MultiscaleGroup<T> {
  using Base = MultiscaleGroup<T>;
  using Base::active, Base::counts, Base::first, Base::gather, Base::order, Base::rows, Base::s, Base::valid, Base::widest,
      Base::widest_panel, Base::width;

 public:
  MultiscaleForward(const Multiscale<T>& sequence, int64_t first_row, int64_t count, Arena<T>& arena)
      : Base(sequence, first_row, count, arena), hidden_(arena.allocate(count * sequence.padded_units)),
        memory_(arena.allocate(count * sequence.padded_units)), boundary_(arena.allocate(count * sequence.count)),
        detector_sums_(arena.allocate(count)), operand_(arena.allocate(count * widest)), zeros_(arena.allocate(kPanel<T>)),
        sums_(arena.allocate(kMultiscaleGates * widest_panel * count)),
        scratch_(arena.allocate((kMultiscaleGates + 2) * widest)) {}

  void run() {
    Base::load_units(s.hidden_before, hidden_);
    Base::load_units(s.memory_before, memory_);
    for (int64_t k = 0; k < rows * s.count; ++k) boundary_[k] = s.boundary_before[first * s.count + k] + T(0);
    std::memset(zeros_, 0, kPanel<T> * sizeof(T));
    const int64_t longest = Base::longest();
    for (int64_t t = 0; t < longest; ++t) {
      clear_saved_scalars(t);
      for (int64_t l = 0; l < s.count; ++l) step(t, l);
      store_outputs(t);
    }
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t from = (first + r) * s.steps + longest, count = s.steps - longest;
      std::memset(s.outputs + from * s.units, 0, count * s.units * sizeof(T));
      std::memset(s.boundaries + from * s.count, 0, count * s.count * sizeof(T));
    }
    Base::store_units(hidden_, s.hidden_after);
    Base::store_units(memory_, s.memory_after);
    std::memcpy(s.boundary_after + first * s.count, boundary_, rows * s.count * sizeof(T));
  }

 private:
  T& boundary(int64_t row, int64_t layer) const { return boundary_[row * s.count + layer]; }
  T* hidden(int64_t row, const Layer& layer) const { return hidden_ + row * s.padded_units + layer.padded_unit; }
  const T* projected(int64_t row, int64_t t) const { return s.projected + ((first + row) * s.steps + t) * s.width; }
  T* saved(int64_t row, int64_t t) const { return s.saved + (t * s.batch + first + row) * s.saved_size; }

  // A layer in COPY, or without detector or normalisation, does not store all of its scalars.
  void clear_saved_scalars(int64_t t) const {
    for (int64_t r = 0; s.saved != nullptr && r < rows; ++r) {
      T* const scalars = saved(r, t) + (kMultiscaleGates + 1) * s.padded_units;
      std::memset(scalars, 0, (s.saved_size - (kMultiscaleGates + 1) * s.padded_units) * sizeof(T));
    }
  }

  void step(int64_t t, int64_t l) {
    const Layer& y = s.layers[l];
    const PackedLayer<T> packed = packed_layer(s, l, false);
    const auto previous = [&](int64_t r) { return boundary(r, l); };
    const auto below = [&](int64_t r) { return l == 0 ? T(1) : boundary(r, l - 1); };
    Base::sort(y, t, previous, below);
    if (y.has_detector) {
      for (int64_t i = 0; i < valid; ++i) detector_sums_[order[i]] = detector_sum(packed, t, l, order[i]);
    }
    sum_gates(packed, l);
    for (int64_t i = 0; i < active; ++i) update(packed, t, l, i);
    if (s.saved != nullptr) {
      for (int64_t i = active; i < valid; ++i) {
        T* const saved_layer = saved(order[i], t) + (kMultiscaleGates + 1) * y.padded_unit + kMultiscaleGates * y.padded();
        std::memcpy(saved_layer, memory_ + order[i] * s.padded_units + y.padded_unit, y.padded() * sizeof(T));
      }
    }
    // Last, because the updates use the previous boundary.
    for (int64_t i = 0; y.has_detector && i < valid; ++i) update_boundary(t, l, order[i]);
  }

  // Sum s of the detector.
  T detector_sum(const PackedLayer<T>& packed, int64_t t, int64_t l, int64_t r) const {
    const Layer& y = s.layers[l];
    const T* const w = s.packed;
    T sum = dot<T>(w + packed.detector[from_itself], hidden(r, y), y.padded());
    if (y.bias >= 0) sum += s.parameters[y.bias + kMultiscaleGates * y.size];
    if (l == 0) sum += projected(r, t)[kMultiscaleGates * y.size];
    if (y.above > 0 && boundary(r, l) != T(0)) {
      const Layer& z = s.layers[l + 1];
      sum += boundary(r, l) * dot<T>(w + packed.detector[from_above], hidden(r, z), z.padded());
    }
    if (l > 0 && boundary(r, l - 1) != T(0)) {
      const Layer& z = s.layers[l - 1];
      sum += boundary(r, l - 1) * dot<T>(w + packed.detector[from_below], hidden(r, z), z.padded());
    }
    return sum;
  }

  void update_boundary(int64_t t, int64_t l, int64_t r) {
    const T scaled = s.slope * detector_sums_[r];
    T p, derivative;
    if (s.hard_sigmoid) {
      const T linear = (scaled + T(1)) / T(2);
      p = linear < T(0) ? T(0) : linear > T(1) ? T(1) : linear;
      derivative = p == linear ? s.slope / T(2) : T(0);
    } else {
      p = sigmoid<T>(broadcast<T>(scaled))[0];
      derivative = s.slope * p * (T(1) - p);
    }
    if (s.saved != nullptr)
      saved(r, t)[(kMultiscaleGates + 1) * s.padded_units + l * kSavedScalars + kMultiscaleGates] = derivative;
    if (!s.soft && p == p) {  // a NaN remains one
      const bool is_boundary = s.draws == nullptr ? p > T(0.5) : s.draws[(t * s.batch + first + r) * s.count + l] < p;
      p = is_boundary ? T(1) : T(0);
    }
    boundary(r, l) = p;
  }

  // Gates' sums of the active rows, sorted by branch: (gates, panels, active, 2W). Only the rows whose branch uses a part
  // multiply it; they are contiguous.
  void sum_gates(const PackedLayer<T>& packed, int64_t l) {
    const Layer& y = s.layers[l];
    const int64_t panels = (y.size + kPanel<T> - 1) / kPanel<T>, panel_size = y.input_size() * kPanel<T>;
    const int64_t from[kParts] = {0, 0, counts[above_only]};
    const int64_t count[kParts] = {active, active - counts[below_only], active - counts[above_only]};
    const auto ones = [](int64_t) { return T(1); };
    const T* weights = s.packed + packed.weights[0];
    for (int part = 0; part < kParts; weights += part_size(y, part++) * kPanel<T>) {
      const int64_t depth = part_size(y, part);
      if (depth == 0 || count[part] == 0) continue;
      const Blocks blocks(count[part], kMaxRows<T>);
      const Layer& source_layer = s.layers[part == from_itself ? l : part == from_above ? l + 1 : l - 1];
      const auto source = [&](int64_t r) { return hidden(r, source_layer); };
      if (part == from_itself) {
        gather(blocks, 0, depth, source, ones, operand_);
      } else {
        const int64_t boundary_layer = part == from_above ? l : l - 1;
        gather(blocks, from[part], depth, source, [&](int64_t r) { return boundary(r, boundary_layer); }, operand_);
      }
      const Operand<T> operand{operand_, Layout::by_rows, depth};
      for (int64_t panel = 0; panel < kMultiscaleGates * panels; ++panel) {
        T* const to = sums_ + (panel * active + from[part]) * kPanel<T>;
        const int64_t columns = y.size - panel % panels * kPanel<T>;
        multiply<T>(blocks, &operand, 1, columns, weights + panel * panel_size, zeros_, to, part != from_itself);
      }
    }
  }

  // Updates c and h of one row.
  void update(const PackedLayer<T>& packed, int64_t t, int64_t l, int64_t i) {
    const Layer& y = s.layers[l];
    const int64_t r = order[i], size = y.size, padded = y.padded(), panel_stride = active * kPanel<T>;
    const int64_t panels = (size + kPanel<T> - 1) / kPanel<T>;
    const T previous = boundary(r, l), below = l == 0 ? T(1) : boundary(r, l - 1);
    const T updated = (T(1) - previous) * below, copied = T(1) - previous - updated;
    const Vector<T> last = first_lanes<T>(size % width == 0 ? width : size % width);
    T* const saved_layer = s.saved == nullptr ? scratch_ : saved(r, t) + (kMultiscaleGates + 1) * y.padded_unit;
    T* const output_gate = scratch_ + (kMultiscaleGates + 1) * widest;
    const T* const input = l == 0 ? projected(r, t) : nullptr;
    for (int gate = 0; gate < kMultiscaleGates; ++gate) {
      T* const a = saved_layer + gate * padded;
      for (int64_t u = 0; u < size; u += width) {
        const T* const from = sums_ + (gate * panels + u / kPanel<T>)*panel_stride + i * kPanel<T> + u % kPanel<T>;
        Vector<T> sum = load<T>(from);
        if (input != nullptr) sum += load_partial<T>(input + gate * size + u, size - u);
        store<T>(a + u, sum);
      }
      if (y.gain < 0) continue;
      const Moments<T> moments(a, size, last);
      for (int64_t u = 0; u < size; u += width) store<T>(a + u, (load<T>(a + u) - moments.mean) * moments.scale);
      if (s.saved != nullptr) saved(r, t)[(kMultiscaleGates + 1) * s.padded_units + l * kSavedScalars + gate] = moments.scale;
    }
    const T *const bias = s.packed + packed.bias, *const gain = s.packed + packed.gain;
    T *const c = memory_ + r * s.padded_units + y.padded_unit, *const h = hidden(r, y);
    const bool normalised = y.gain >= 0;
    for (int64_t u = 0; u < size; u += width) {
      Vector<T> a[kMultiscaleGates];
      for (int gate = 0; gate < kMultiscaleGates; ++gate) {
        a[gate] = load<T>(saved_layer + gate * padded + u);
        if (normalised) a[gate] = a[gate] * load<T>(gain + gate * padded + u);
        a[gate] += load<T>(bias + gate * padded + u);
      }
      const Vector<T> f = sigmoid<T>(a[0]), in = sigmoid<T>(a[1]), g = tanh<T>(a[3]);
      store<T>(output_gate + u, sigmoid<T>(a[2]));
      store<T>(c + u, (T(1) - copied) * in * g + (copied + updated * f) * load<T>(c + u));
    }
    T* const tanh_c = scratch_ + kMultiscaleGates * widest;
    memory_tanh(packed, y, c, last, tanh_c);
    for (int64_t u = 0; u < size; u += width) {
      store<T>(h + u, (T(1) - copied) * load<T>(output_gate + u) * load<T>(tanh_c + u) + copied * load<T>(h + u));
    }
    if (s.saved != nullptr) std::memcpy(saved_layer + kMultiscaleGates * padded, c, padded * sizeof(T));
  }

  // tanh of c, or of the normalised c.
  void memory_tanh(const PackedLayer<T>& packed, const Layer& y, const T* c, const Vector<T>& last, T* to) const {
    if (y.memory_gain < 0) {
      for (int64_t u = 0; u < y.size; u += width) store<T>(to + u, tanh<T>(load<T>(c + u)));
      return;
    }
    const Moments<T> moments(c, y.size, last);
    const T *const gain = s.packed + packed.memory_gain, *const bias = s.packed + packed.memory_bias;
    for (int64_t u = 0; u < y.size; u += width) {
      const Vector<T> normal = (load<T>(c + u) - moments.mean) * moments.scale;
      store<T>(to + u, tanh<T>(normal * load<T>(gain + u) + load<T>(bias + u)));
    }
  }

  void store_outputs(int64_t t) const {
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t step = (first + r) * s.steps + t;
      T *const out = s.outputs + step * s.units, *const boundaries = s.boundaries + step * s.count;
      if (!Base::is_valid(r, t)) {
        std::memset(out, 0, s.units * sizeof(T));
        std::memset(boundaries, 0, s.count * sizeof(T));
        continue;
      }
      std::memcpy(boundaries, &boundary(r, 0), s.count * sizeof(T));
      for (int64_t l = 0; l < s.count; ++l) {
        std::memcpy(out + s.layers[l].unit, hidden(r, s.layers[l]), s.layers[l].size * sizeof(T));
      }
    }
  }

  T* const hidden_;  // (rows, padded_units)
  T* const memory_;
  T* const boundary_;       // (rows, L)
  T* const detector_sums_;  // (rows,)
  T* const operand_;
  T* const zeros_;
  T* const sums_;
  T* const scratch_;
};

}  // namespace seqmem::SEQMEM_ISA
