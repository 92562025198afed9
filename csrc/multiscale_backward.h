// Backward multiscale loop: runs a group of rows through all layers and the steps of a chunk in reverse.
#pragma once

#include <cstdint>
#include <cstring>

#include "multiscale_group.h"
#include "sequence_math.h"

namespace seqmem::SEQMEM_ISA {

// Offsets of a layer's parameter gradients.
template <typename T>
static LayerGradients layer_gradients(const Multiscale<T>& s, int64_t layer) {
  LayerGradients layout(s.layers[0], 0);
  for (int64_t l = 1; l <= layer; ++l) layout = LayerGradients(s.layers[l], layout.end);
  return layout;
}

// The gradients of hidden state and boundary are double buffered: one buffer for this step, one for the previous step.
template <typename T>
class MultiscaleBackward : MultiscaleGroup<T> {
  using Base = MultiscaleGroup<T>;
  using Base::active, Base::counts, Base::first, Base::offset, Base::order, Base::rows, Base::s, Base::valid, Base::widest,
      Base::width;

 public:
  MultiscaleBackward(
      const Multiscale<T>& sequence, int64_t first_row, int64_t count, Arena<T>& arena, T* weight_grads,
      GradientOperands<T>* operands)
      : Base(sequence, first_row, count, arena),
        hidden_{arena.allocate(count * sequence.padded_units), arena.allocate(count * sequence.padded_units)},
        boundary_{arena.allocate(count * sequence.count), arena.allocate(count * sequence.count)},
        memory_(arena.allocate(count * sequence.padded_units)), detector_grads_(arena.allocate(count)),
        boundary_dots_(arena.allocate(count * width)), gates_(arena.allocate(kMultiscaleGates * count * widest)),
        sums_(arena.allocate(count * kPanel<T>)), zeros_(arena.allocate(kPanel<T>)),
        scratch_(arena.allocate((2 * kMultiscaleGates + 2) * widest)),
        positions_(
            reinterpret_cast<int64_t*>(arena.allocate(sequence.count * kBranches * int64_t(sizeof(int64_t) / sizeof(float))))),
        weight_grads_(weight_grads), operands_(operands) {}

  void run(int64_t begin, int64_t end) {
    std::memset(zeros_, 0, kPanel<T> * sizeof(T));
    if (end == s.steps) start();
    count_branches(begin, end);
    for (int64_t t = end - 1; t >= begin; --t) {
      add_output_gradients(t);
      for (int64_t l = s.count - 1; l >= 0; --l) step(t, l);
    }
    if (begin > 0) return;
    Base::store_units(hidden_[previous(0)], s.grad_hidden_before);
    Base::store_units(memory_, s.grad_memory_before);
    std::memcpy(s.grad_boundary_before + first * s.count, boundary_[previous(0)], rows * s.count * sizeof(T));
  }

 private:
  // Index of the buffer of step t, and of the step before.
  static int current(int64_t t) { return int(t & 1); }
  static int previous(int64_t t) { return 1 - current(t); }

  const T* saved(int64_t row, int64_t t) const { return s.saved + (t * s.batch + first + row) * s.saved_size; }
  const T* output(int64_t row, int64_t t) const { return s.outputs + ((first + row) * s.steps + t) * s.units; }
  T* grad_projected(int64_t row, int64_t t) const { return s.grad_projected + ((first + row) * s.steps + t) * s.width; }
  const T* hidden_before(int64_t row, int64_t t) const {
    return t == 0 ? s.hidden_before + (first + row) * s.units : output(row, t - 1);
  }
  T boundary(int64_t row, int64_t t, int64_t layer) const {
    return s.boundaries[((first + row) * s.steps + t) * s.count + layer];
  }
  T previous_boundary(int64_t row, int64_t t, int64_t layer) const {
    return t == 0 ? s.boundary_before[(first + row) * s.count + layer] : boundary(row, t - 1, layer);
  }
  T boundary_below(int64_t row, int64_t t, int64_t layer) const { return layer == 0 ? T(1) : boundary(row, t, layer - 1); }

  void start() {
    T *const hidden = hidden_[current(s.steps - 1)], *const boundary = boundary_[current(s.steps - 1)];
    std::memset(hidden, 0, rows * s.padded_units * sizeof(T));
    std::memset(memory_, 0, rows * s.padded_units * sizeof(T));
    std::memset(boundary, 0, rows * s.count * sizeof(T));
    if (s.grad_hidden_after != nullptr) Base::load_units(s.grad_hidden_after, hidden);
    if (s.grad_memory_after != nullptr) Base::load_units(s.grad_memory_after, memory_);
    if (s.grad_boundary_after != nullptr) {
      std::memcpy(boundary, s.grad_boundary_after + first * s.count, rows * s.count * sizeof(T));
    }
  }

  void count_branches(int64_t begin, int64_t end) {
    for (int64_t l = 0; l < s.count; ++l) {
      int64_t count[kBranches + 1] = {};
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t t = begin; t < end && Base::is_valid(r, t); ++t) {
          ++count[Base::branch(s.layers[l], previous_boundary(r, t, l), boundary_below(r, t, l))];
        }
      }
      int64_t start = 0;
      for (int b = 0; b < kBranches; ++b) {
        operands_[l].count[b] = count[b];
        positions_[l * kBranches + b] = start;
        start += count[b];
      }
    }
  }

  // Adds the gradients of a step's outputs. A padded step passes its gradients to the step before.
  void add_output_gradients(int64_t t) {
    T *const hidden = hidden_[current(t)], *const boundary = boundary_[current(t)];
    for (int64_t r = 0; r < rows; ++r) {
      if (!Base::is_valid(r, t)) {
        std::memcpy(hidden_[previous(t)] + r * s.padded_units, hidden + r * s.padded_units, s.padded_units * sizeof(T));
        std::memcpy(boundary_[previous(t)] + r * s.count, boundary + r * s.count, s.count * sizeof(T));
        if (s.grad_projected != nullptr) std::memset(grad_projected(r, t), 0, s.width * sizeof(T));
        continue;
      }
      std::memset(hidden_[previous(t)] + r * s.padded_units, 0, s.padded_units * sizeof(T));
      std::memset(boundary_[previous(t)] + r * s.count, 0, s.count * sizeof(T));
      const int64_t step = (first + r) * s.steps + t;
      if (s.grad_outputs != nullptr) {
        for (int64_t l = 0; l < s.count; ++l) {
          const Layer& y = s.layers[l];
          add_row(hidden + r * s.padded_units + y.padded_unit, T(1), s.grad_outputs + step * s.units + y.unit, y.size);
        }
      }
      if (s.grad_boundaries != nullptr) {
        for (int64_t l = 0; l < s.count; ++l) boundary[r * s.count + l] += s.grad_boundaries[step * s.count + l];
      }
    }
  }

  // to += scale * from, zero beyond `count` in the last vector.
  SEQMEM_INLINE void add_row(T* to, T scale, const T* from, int64_t count) {
    for (int64_t u = 0; u < count; u += width) store<T>(to + u, load<T>(to + u) + scale * load_partial<T>(from + u, count - u));
  }
  SEQMEM_INLINE void add(T* to, const Vector<T>& value) { store<T>(to, load<T>(to) + value); }

  void step(int64_t t, int64_t l) {
    const Layer& y = s.layers[l];
    const PackedLayer<T> packed = packed_layer(s, l, true);
    const LayerGradients layout = layer_gradients(s, l);
    Base::sort(y, t, [&](int64_t r) { return previous_boundary(r, t, l); }, [&](int64_t r) { return boundary_below(r, t, l); });
    for (int64_t i = 0; i < valid; ++i) {
      const int64_t r = order[i];
      const T grad = boundary_[current(t)][r * s.count + l];
      if (y.has_detector) {
        detector_grads_[r] = grad * saved(r, t)[(kMultiscaleGates + 1) * s.padded_units + l * kSavedScalars + kMultiscaleGates];
        detector_backward(packed, layout, t, l, r);
      } else {
        boundary_[previous(t)][r * s.count + l] += grad;
      }
    }
    const Blocks blocks(active, kMaxRows<T>);
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int r = 0; r < blocks.rows(b); ++r) gates_backward(packed, layout, blocks, t, l, b, r);
    }
    for (int64_t i = active; i < valid; ++i) {
      const int64_t start = order[i] * s.padded_units + y.padded_unit;
      add_row(hidden_[previous(t)] + start, T(1), hidden_[current(t)] + start, y.padded());
    }
    if (active > 0) products_backward(packed, blocks, t, l);
  }

  void detector_backward(const PackedLayer<T>& packed, const LayerGradients& layout, int64_t t, int64_t l, int64_t r) {
    const Layer& y = s.layers[l];
    const T grad = detector_grads_[r];
    if (l == 0 && s.grad_projected != nullptr) grad_projected(r, t)[kMultiscaleGates * y.size] = grad;
    if (grad == T(0)) return;
    weight_grads_[layout.detector_bias] += grad;
    const T* const weights = s.packed;
    const T* const h_before = hidden_before(r, t);
    add_row(hidden_[previous(t)] + r * s.padded_units + y.padded_unit, grad, weights + packed.detector[from_itself], y.size);
    add_row(weight_grads_ + layout.detector[from_itself], grad, h_before + y.unit, y.size);
    if (y.above > 0) {
      const Layer& z = s.layers[l + 1];
      const T boundary_value = previous_boundary(r, t, l), *const w = weights + packed.detector[from_above];
      boundary_[previous(t)][r * s.count + l] += grad * dot<T>(w, h_before + z.unit, z.size);
      if (boundary_value != T(0)) {
        add_row(hidden_[previous(t)] + r * s.padded_units + z.padded_unit, grad * boundary_value, w, z.size);
        add_row(weight_grads_ + layout.detector[from_above], grad * boundary_value, h_before + z.unit, z.size);
      }
    }
    if (l > 0) {
      const Layer& z = s.layers[l - 1];
      const T boundary_value = boundary_below(r, t, l), *const w = weights + packed.detector[from_below];
      const T* const lower = output(r, t) + z.unit;
      boundary_[current(t)][r * s.count + l - 1] += grad * dot<T>(w, lower, z.size);
      if (boundary_value != T(0)) {
        add_row(hidden_[current(t)] + r * s.padded_units + z.padded_unit, grad * boundary_value, w, z.size);
        add_row(weight_grads_ + layout.detector[from_below], grad * boundary_value, lower, z.size);
      }
    }
  }

  // From the gradients of h and c of a row not in COPY to those of the gates' sums and of the previous c.
  void gates_backward(
      const PackedLayer<T>& packed, const LayerGradients& layout, const Blocks& blocks, int64_t t, int64_t l, int64_t b,
      int r) {
    const Layer& y = s.layers[l];
    const int64_t i = blocks.start(b) + r, row = order[i], size = y.size, padded = y.padded();
    const T previous_z = previous_boundary(row, t, l), below = boundary_below(row, t, l);
    const T updated = (T(1) - previous_z) * below, copied = T(1) - previous_z - updated;
    const Vector<T> last = first_lanes<T>(size % width == 0 ? width : size % width);
    const auto inside = [&](int64_t u) { return u + width <= size ? broadcast<T>(T(1)) : last; };
    const T *const saved_layer = saved(row, t) + (kMultiscaleGates + 1) * y.padded_unit, *const c = saved_layer +
                                                                                                    kMultiscaleGates * padded;
    const T* const saved_scalars = saved(row, t) + (kMultiscaleGates + 1) * s.padded_units + l * kSavedScalars;
    const T* const c_before = t == 0 ? s.memory_before + (first + row) * s.units + y.unit
                                     : saved(row, t - 1) + (kMultiscaleGates + 1) * y.padded_unit + kMultiscaleGates * padded;
    const T* const h_before = hidden_before(row, t) + y.unit;
    const T *const bias = s.packed + packed.bias, *const gain = s.packed + packed.gain;
    const bool normalised = y.gain >= 0;
    T* const dh = hidden_[current(t)] + row * s.padded_units + y.padded_unit;
    T* const dh_before = hidden_[previous(t)] + row * s.padded_units + y.padded_unit;
    T* const dc = memory_ + row * s.padded_units + y.padded_unit;
    T *const values = scratch_, *const gate_grads = scratch_ + kMultiscaleGates * widest;
    T *const tanh_values = scratch_ + 2 * kMultiscaleGates * widest, *const c_grads = tanh_values + widest;

    for (int64_t u = 0; u < size; u += width) {
      for (int gate = 0; gate < kMultiscaleGates; ++gate) {
        Vector<T> a = load<T>(saved_layer + gate * padded + u);
        if (normalised) a = a * load<T>(gain + gate * padded + u);
        a += load<T>(bias + gate * padded + u);
        store<T>(values + gate * widest + u, gate == 3 ? tanh<T>(a) : sigmoid<T>(a));
      }
    }
    memory_norm_backward(packed, layout, y, c, last, dh, dc, T(1) - copied, values + 2 * widest, tanh_values, c_grads);
    Vector<T> copied_grads{}, updated_grads{};
    for (int64_t u = 0; u < size; u += width) {
      const Vector<T> f = load<T>(values + u), in = load<T>(values + widest + u), o = load<T>(values + 2 * widest + u),
                      g = load<T>(values + 3 * widest + u);
      const Vector<T> c_grad = load<T>(c_grads + u), previous_c = load_partial<T>(c_before + u, size - u),
                      h_grad = load<T>(dh + u);
      const Vector<T> tanh_c = load<T>(tanh_values + u);
      if (s.soft) {
        copied_grads += c_grad * (previous_c - in * g) + h_grad * (load_partial<T>(h_before + u, size - u) - o * tanh_c);
        updated_grads += c_grad * f * previous_c;
      }
      if (copied != T(0)) add(dh_before + u, copied * h_grad);
      store<T>(dc + u, (copied + updated * f) * c_grad);
      store<T>(gate_grads + u, updated * c_grad * previous_c * f * (T(1) - f));
      store<T>(gate_grads + widest + u, (T(1) - copied) * c_grad * g * in * (T(1) - in));
      store<T>(gate_grads + 2 * widest + u, (T(1) - copied) * h_grad * tanh_c * o * (T(1) - o));
      store<T>(gate_grads + 3 * widest + u, (T(1) - copied) * c_grad * in * (T(1) - g * g));
    }
    if (s.soft) {
      const T copied_grad = sum_of<T>(copied_grads), updated_grad = sum_of<T>(updated_grads);
      boundary_[previous(t)][row * s.count + l] -= below * updated_grad + (T(1) - below) * copied_grad;
      if (l > 0) boundary_[current(t)][row * s.count + l - 1] += (T(1) - previous_z) * (updated_grad - copied_grad);
    }
    const int branch = i < counts[above_only]                             ? above_only
                       : i < counts[above_only] + counts[above_and_below] ? above_and_below
                                                                          : below_only;
    const int64_t position = positions_[l * kBranches + branch]++;
    T* const operand = operands_[l].gradients + position * kMultiscaleGates * size;
    T* const to_input = l == 0 && s.grad_projected != nullptr ? grad_projected(row, t) : nullptr;
    for (int gate = 0; gate < kMultiscaleGates; ++gate) {
      T* const gate_grad = gate_grads + gate * widest;
      const T* const normal = saved_layer + gate * padded;
      Vector<T> sum{}, product{};
      for (int64_t u = 0; u < size; u += width) {
        Vector<T> d = load<T>(gate_grad + u);
        add(weight_grads_ + layout.bias + gate * padded + u, d);
        if (!normalised) continue;
        const Vector<T> x = load<T>(normal + u);
        add(weight_grads_ + layout.gain + gate * padded + u, d * x);
        d = d * load<T>(gain + gate * padded + u);
        sum += d;
        product += d * x;
        store<T>(gate_grad + u, d);
      }
      const T mean = sum_of<T>(sum) / T(size), projection = sum_of<T>(product) / T(size), scale = saved_scalars[gate];
      for (int64_t u = 0; u < size; u += width) {
        Vector<T> d = load<T>(gate_grad + u);
        if (normalised) d = scale * (d - mean - load<T>(normal + u) * projection) * inside(u);
        store<T>(gates_ + gate * rows * widest + offset(blocks, size, b, r, u), d);
        store_partial<T>(operand + gate * size + u, d, size - u);
        if (to_input != nullptr) store_partial<T>(to_input + gate * size + u, d, size - u);
      }
    }
    T* const inputs = operands_[l].inputs + position * y.input_size();
    std::memcpy(inputs, h_before, size * sizeof(T));
    if (branch != below_only && y.above > 0) {
      copy_scaled(inputs + size, previous_z, hidden_before(row, t) + s.layers[l + 1].unit, y.above);
    }
    if (branch != above_only && l > 0) {
      copy_scaled(inputs + size + y.above, below, output(row, t) + s.layers[l - 1].unit, y.below);
    }
  }

  static void copy_scaled(T* to, T scale, const T* from, int64_t count) {
    for (int64_t u = 0; u < count; ++u) to[u] = scale * from[u];
  }

  // tanh_values: tanh of c, or of the normalised c. c_grads: the gradient of c, dc plus the part through h.
  void memory_norm_backward(
      const PackedLayer<T>& packed, const LayerGradients& layout, const Layer& y, const T* c, const Vector<T>& last,
      const T* dh, const T* dc, T h_scale, const T* o, T* tanh_values, T* c_grads) {
    if (y.memory_gain < 0) {
      for (int64_t u = 0; u < y.size; u += width) {
        const Vector<T> value = tanh<T>(load<T>(c + u));
        store<T>(tanh_values + u, value);
        store<T>(c_grads + u, load<T>(dc + u) + h_scale * load<T>(dh + u) * load<T>(o + u) * (T(1) - value * value));
      }
      return;
    }
    const Moments<T> moments(c, y.size, last);
    const T *const gain = s.packed + packed.memory_gain, *const bias = s.packed + packed.memory_bias;
    Vector<T> sum{}, product{};
    for (int64_t u = 0; u < y.size; u += width) {
      const Vector<T> x = (load<T>(c + u) - moments.mean) * moments.scale;
      const Vector<T> value = tanh<T>(x * load<T>(gain + u) + load<T>(bias + u));
      store<T>(tanh_values + u, value);
      Vector<T> d = h_scale * load<T>(dh + u) * load<T>(o + u) * (T(1) - value * value);
      add(weight_grads_ + layout.memory_bias + u, d);
      add(weight_grads_ + layout.memory_gain + u, d * x);
      d = d * load<T>(gain + u);
      sum += d;
      product += d * x;
      store<T>(c_grads + u, d);
    }
    const T mean = sum_of<T>(sum) / T(y.size), projection = sum_of<T>(product) / T(y.size);
    for (int64_t u = 0; u < y.size; u += width) {
      const Vector<T> x = (load<T>(c + u) - moments.mean) * moments.scale;
      const Vector<T> d = moments.scale * (load<T>(c_grads + u) - mean - x * projection);
      store<T>(c_grads + u, load<T>(dc + u) + d * (u + width <= y.size ? broadcast<T>(T(1)) : last));
    }
  }

  // From the gradients of the active rows' gate sums to the gradients of the layer's inputs.
  void products_backward(const PackedLayer<T>& packed, const Blocks& blocks, int64_t t, int64_t l) {
    const Layer& y = s.layers[l];
    Operand<T> operands[kMultiscaleGates];
    for (int gate = 0; gate < kMultiscaleGates; ++gate)
      operands[gate] = {gates_ + gate * rows * widest, Layout::by_rows, y.size};
    for (int part = 0; part < kParts; ++part) {
      const int64_t size = part_size(y, part), source = part == from_itself ? l : part == from_above ? l + 1 : l - 1;
      if (size == 0) continue;
      const Layer& z = s.layers[source];
      T* const target = hidden_[part == from_below ? current(t) : previous(t)] + z.padded_unit;
      std::memset(boundary_dots_, 0, active * width * sizeof(T));
      const T* w = s.packed + packed.weights[part];
      for (int64_t column = 0; column < size; column += kPanel<T>, w += kMultiscaleGates * y.size * kPanel<T>) {
        multiply<T>(blocks, operands, kMultiscaleGates, size - column, w, zeros_, sums_);
        for (int64_t i = 0; i < active; ++i) {
          const int64_t row = order[i];
          const T boundary_value = part == from_itself  ? T(1)
                                   : part == from_above ? previous_boundary(row, t, l)
                                                        : boundary_below(row, t, l);
          const T* const inputs = (part == from_below ? output(row, t) : hidden_before(row, t)) + z.unit;
          for (int64_t k = column; k < column + kPanel<T> && k < size; k += width) {
            const Vector<T> d = load<T>(sums_ + i * kPanel<T> + k - column);
            if (boundary_value != T(0)) add(target + row * s.padded_units + k, boundary_value * d);
            if (part != from_itself) add(boundary_dots_ + i * width, d * load_partial<T>(inputs + k, size - k));
          }
        }
      }
      if (part == from_itself) continue;
      for (int64_t i = 0; i < active; ++i) {
        T* const boundary_grad = boundary_[part == from_below ? current(t) : previous(t)] + order[i] * s.count;
        boundary_grad[part == from_below ? l - 1 : l] += sum_of<T>(load<T>(boundary_dots_ + i * width));
      }
    }
  }

  T* const hidden_[2];    // gradients (rows, padded_units)
  T* const boundary_[2];  // gradients (rows, L)
  T* const memory_;
  T* const detector_grads_;  // (rows,)
  T* const boundary_dots_;   // (rows, W)
  T* const gates_;           // one operand per gate
  T* const sums_;
  T* const zeros_;
  T* const scratch_;
  int64_t* const positions_;  // (L, kBranches) index of the next row of the operands
  T* const weight_grads_;
  GradientOperands<T>* const operands_;
};

}  // namespace seqmem::SEQMEM_ISA
