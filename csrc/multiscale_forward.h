// The way forward through a multiscale stack: a group of rows goes through all layers of all steps.
#pragma once

#include <cstdint>
#include <cstring>

#include "multiscale_group.h"
#include "sequence_math.h"

namespace seqmem::SEQMEM_ISA {

template <typename T>
class MultiscaleForward : MultiscaleGroup<T> {
  using Base = MultiscaleGroup<T>;
  using Base::active, Base::at, Base::counts, Base::first, Base::gather, Base::order, Base::rows, Base::s, Base::valid,
      Base::widest, Base::widest_panel, Base::width;

 public:
  MultiscaleForward(const Multiscale<T>& sequence, int64_t first_row, int64_t count, Arena<T>& arena)
      : Base(sequence, first_row, count, arena), hidden_(arena.take(count * sequence.places)),
        memory_(arena.take(count * sequence.places)), boundary_(arena.take(count * sequence.count)),
        detected_(arena.take(count)), operand_(arena.take(count * widest)), zeros_(arena.take(kPanel<T>)),
        sums_(arena.take(kMultiscaleGates * widest_panel * count)), scratch_(arena.take((kMultiscaleGates + 2) * widest)) {}

  void run() {
    Base::take_units(s.hidden_before, hidden_);
    Base::take_units(s.memory_before, memory_);
    std::memcpy(boundary_, s.boundary_before + first * s.count, rows * s.count * sizeof(T));
    std::memset(zeros_, 0, kPanel<T> * sizeof(T));
    const int64_t longest = Base::longest();
    for (int64_t t = 0; t < longest; ++t) {
      clear_numbers(t);
      for (int64_t l = 0; l < s.count; ++l) advance(t, l);
      give(t);
    }
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t from = (first + r) * s.steps + longest, count = s.steps - longest;
      std::memset(s.outputs + from * s.units, 0, count * s.units * sizeof(T));
      std::memset(s.boundaries + from * s.count, 0, count * s.count * sizeof(T));
    }
    Base::give_units(hidden_, s.hidden_after);
    Base::give_units(memory_, s.memory_after);
    std::memcpy(s.boundary_after + first * s.count, boundary_, rows * s.count * sizeof(T));
  }

 private:
  T& boundary(int64_t row, int64_t layer) const { return boundary_[row * s.count + layer]; }
  T* hidden(int64_t row, const Layer& layer) const { return hidden_ + row * s.places + layer.place; }
  const T* projected(int64_t row, int64_t t) const { return s.projected + ((first + row) * s.steps + t) * s.width; }
  T* saved(int64_t row, int64_t t) const { return s.saved + (t * s.batch + first + row) * s.kept; }

  // A layer that copies, or has neither detector nor normalisation, writes less than all; what is kept is never undefined.
  void clear_numbers(int64_t t) const {
    for (int64_t r = 0; s.saved != nullptr && r < rows; ++r) {
      T* const numbers = saved(r, t) + (kMultiscaleGates + 1) * s.places;
      std::memset(numbers, 0, (s.kept - (kMultiscaleGates + 1) * s.places) * sizeof(T));
    }
  }

  void advance(int64_t t, int64_t l) {
    const Layer& y = s.layers[l];
    const PackedLayer<T> packed = packed_layer(s, l, false);
    const auto own = [&](int64_t r) { return boundary(r, l); };
    const auto below = [&](int64_t r) { return l == 0 ? T(1) : boundary(r, l - 1); };
    Base::sort(y, t, own, below);
    if (y.detects) {
      for (int64_t i = 0; i < valid; ++i) detected_[order[i]] = detect(packed, t, l, order[i]);
    }
    multiply_all(packed, l);
    for (int64_t i = 0; i < active; ++i) update(packed, t, l, i);
    if (s.saved != nullptr) {
      for (int64_t i = active; i < valid; ++i) {
        T* const kept = saved(order[i], t) + (kMultiscaleGates + 1) * y.place + kMultiscaleGates * y.padded();
        std::memcpy(kept, memory_ + order[i] * s.places + y.place, y.padded() * sizeof(T));
      }
    }
    // Only now, as the boundary before decided on the branch.
    for (int64_t i = 0; y.detects && i < valid; ++i) bound(t, l, order[i]);
  }

  // s of the detector.
  T detect(const PackedLayer<T>& packed, int64_t t, int64_t l, int64_t r) const {
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

  void bound(int64_t t, int64_t l, int64_t r) {
    const T steep = s.slope * detected_[r];
    T p, derivative;
    if (s.hard_sigmoid) {
      const T line = (steep + T(1)) / T(2);
      p = line < T(0) ? T(0) : line > T(1) ? T(1) : line;
      derivative = p == line ? s.slope / T(2) : T(0);
    } else {
      p = sigmoid<T>(broadcast<T>(steep))[0];
      derivative = s.slope * p * (T(1) - p);
    }
    if (s.saved != nullptr) saved(r, t)[(kMultiscaleGates + 1) * s.places + l * kNumbers + kMultiscaleGates] = derivative;
    if (!s.soft) p = (s.draws == nullptr ? p > T(0.5) : s.draws[(t * s.batch + first + r) * s.count + l] < p) ? T(1) : T(0);
    boundary(r, l) = p;
  }

  // The gates' sums of the active rows, in their order: (gates, panels, active, 2W). A part is read by those rows only for which it
  // is not zero, which lie side by side.
  void multiply_all(const PackedLayer<T>& packed, int64_t l) {
    const Layer& y = s.layers[l];
    const int64_t panels = (y.size + kPanel<T> - 1) / kPanel<T>, panel_size = y.reads() * kPanel<T>;
    const int64_t from[kParts] = {0, 0, counts[reads_above]};
    const int64_t count[kParts] = {active, active - counts[reads_below], active - counts[reads_above]};
    const auto ones = [](int64_t) { return T(1); };
    const T* weights = s.packed + packed.weights[0];
    for (int part = 0; part < kParts; weights += part_size(y, part++) * kPanel<T>) {
      const int64_t depth = part_size(y, part);
      if (depth == 0 || count[part] == 0) continue;
      const Blocks blocks(count[part], kMaxRows<T>);
      const Layer& read = s.layers[part == from_itself ? l : part == from_above ? l + 1 : l - 1];
      const auto source = [&](int64_t r) { return hidden(r, read); };
      if (part == from_itself) {
        gather(blocks, 0, depth, source, ones, operand_);
      } else {
        const int64_t which = part == from_above ? l : l - 1;
        gather(blocks, from[part], depth, source, [&](int64_t r) { return boundary(r, which); }, operand_);
      }
      const Operand<T> operand{operand_, Order::by_rows, depth};
      for (int64_t panel = 0; panel < kMultiscaleGates * panels; ++panel) {
        T* const to = sums_ + (panel * active + from[part]) * kPanel<T>;
        const int64_t columns = y.size - panel % panels * kPanel<T>;
        multiply<T>(blocks, &operand, 1, columns, weights + panel * panel_size, zeros_, to, part != from_itself);
      }
    }
  }

  // One row's gates, c and h.
  void update(const PackedLayer<T>& packed, int64_t t, int64_t l, int64_t i) {
    const Layer& y = s.layers[l];
    const int64_t r = order[i], size = y.size, padded = y.padded(), panel_apart = active * kPanel<T>;
    const int64_t panels = (size + kPanel<T> - 1) / kPanel<T>;
    const T own = boundary(r, l), fed = l == 0 ? T(1) : boundary(r, l - 1);
    const T updated = (T(1) - own) * fed, copied = T(1) - own - updated;
    const Vector<T> last = first_lanes<T>(size % width == 0 ? width : size % width);
    T* const kept = s.saved == nullptr ? scratch_ : saved(r, t) + (kMultiscaleGates + 1) * y.place;
    T* const opened = scratch_ + (kMultiscaleGates + 1) * widest;  // o
    const T* const input = l == 0 ? projected(r, t) : nullptr;
    for (int gate = 0; gate < kMultiscaleGates; ++gate) {
      T* const a = kept + gate * padded;
      for (int64_t u = 0; u < size; u += width) {
        const T* const from = sums_ + (gate * panels + u / kPanel<T>) * panel_apart + i * kPanel<T> + u % kPanel<T>;
        Vector<T> sum = load<T>(from);
        if (input != nullptr) sum += load_some<T>(input + gate * size + u, size - u);
        store<T>(a + u, sum);
      }
      if (y.gain < 0) continue;
      const Moments<T> moments(a, size, last);
      for (int64_t u = 0; u < size; u += width) store<T>(a + u, (load<T>(a + u) - moments.mean) * moments.scale);
      if (s.saved != nullptr) saved(r, t)[(kMultiscaleGates + 1) * s.places + l * kNumbers + gate] = moments.scale;
    }
    const T *const bias = s.packed + packed.bias, *const gain = s.packed + packed.gain;
    T *const c = memory_ + r * s.places + y.place, *const h = hidden(r, y);
    const bool normalized = y.gain >= 0;
    for (int64_t u = 0; u < size; u += width) {
      Vector<T> a[kMultiscaleGates];
      for (int gate = 0; gate < kMultiscaleGates; ++gate) {
        a[gate] = load<T>(kept + gate * padded + u);
        if (normalized) a[gate] = a[gate] * load<T>(gain + gate * padded + u);
        a[gate] += load<T>(bias + gate * padded + u);
      }
      const Vector<T> f = sigmoid<T>(a[0]), in = sigmoid<T>(a[1]), g = tanh<T>(a[3]);
      store<T>(opened + u, sigmoid<T>(a[2]));
      store<T>(c + u, (T(1) - copied) * in * g + (copied + updated * f) * load<T>(c + u));
    }
    squash(packed, y, c, last, scratch_ + kMultiscaleGates * widest);
    const T* const squashed = scratch_ + kMultiscaleGates * widest;
    for (int64_t u = 0; u < size; u += width) {
      store<T>(h + u, (T(1) - copied) * load<T>(opened + u) * load<T>(squashed + u) + copied * load<T>(h + u));
    }
    if (s.saved != nullptr) std::memcpy(kept + kMultiscaleGates * padded, c, padded * sizeof(T));
  }

  // tanh of c, normalised or not.
  void squash(const PackedLayer<T>& packed, const Layer& y, const T* c, const Vector<T>& last, T* to) const {
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

  void give(int64_t t) const {
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t step = (first + r) * s.steps + t;
      T *const out = s.outputs + step * s.units, *const found = s.boundaries + step * s.count;
      if (!Base::is_valid(r, t)) {
        std::memset(out, 0, s.units * sizeof(T));
        std::memset(found, 0, s.count * sizeof(T));
        continue;
      }
      std::memcpy(found, &boundary(r, 0), s.count * sizeof(T));
      for (int64_t l = 0; l < s.count; ++l) {
        std::memcpy(out + s.layers[l].unit, hidden(r, s.layers[l]), s.layers[l].size * sizeof(T));
      }
    }
  }

  T* const hidden_;    // (rows, places)
  T* const memory_;
  T* const boundary_;  // (rows, L)
  T* const detected_;  // (rows,)
  T* const operand_;
  T* const zeros_;
  T* const sums_;
  T* const scratch_;
};

}  // namespace seqmem::SEQMEM_ISA
