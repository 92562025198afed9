// Backward time loop: runs a group of rows through all steps in reverse, chunk by chunk.
#pragma once

#include <cstdint>
#include <cstring>

#include "sequence_group.h"
#include "sequence_pack.h"

namespace seqmem::SEQMEM_ISA {

template <typename T, typename Pointwise, bool bf16>
static GradientLayout gradient_layout(const Sequence<T>& s) {
  constexpr int64_t width = kLanes<T>;
  GradientLayout layout{};
  Columns& columns = layout.columns;
  const int64_t memory = Pointwise::kHasMemory ? s.memories * s.order : Pointwise::kResetBefore ? s.hidden : 0;
  columns.hidden = s.weight[from_memory] != nullptr || s.weight_um != nullptr ? memory : 0;
  columns.bias = columns.hidden + (s.weight[from_hidden] != nullptr ? s.hidden : 0);
  columns.input = columns.bias + 1;
  columns.count = columns.input + s.channels;
  layout.sections = Pointwise::kGradients;
  layout.panels = (s.hidden + kPanel<T> - 1) / kPanel<T>;
  Arena<T> arena{nullptr};
  const auto allocate = [&](int64_t numbers) {
    const int64_t start = arena.used;
    arena.allocate(numbers);
    return start;
  };
  layout.rows = bf16 ? round_up(columns.count, kTileRows) : columns.count;
  layout.gates = allocate(layout.sections * layout.panels * layout.rows * kPanel<T>);
  if constexpr (Pointwise::kHasMemory) {
    layout.weight_uh = allocate(s.memories * round_up(s.hidden, width));
    layout.weight_um = allocate(memory * width);
    layout.weight_ux = allocate(s.memories * s.channels * width);
    layout.bias_u = allocate(s.memories * width);
  }
  layout.size = arena.used;
  return layout;
}

// Magnitude at which gradients of states are cut off.
template <typename T>
constexpr T kLargestGradient = sizeof(T) == 4 ? T(1e30) : T(1e300);

// Rows of (step, batch) per product that adds to the weight gradients.
constexpr int64_t kProductRows = 400;

// Keeps the factors of the weight gradients for the steps of one chunk: the gradients of the gates' sums, and the sources. The
// memory, one of the sources, is recomputed from the checkpoint of the chunk.
template <typename T, typename Pointwise, bool bf16>
class Backward : Group<T, Pointwise, bf16> {
  using Base = Group<T, Pointwise, bf16>;
  using Mask = typename Base::Mask;
  using Base::blocks, Base::first, Base::memory, Base::memory_input, Base::offset, Base::padded, Base::rows, Base::s,
      Base::valid, Base::width;

  // The memory is recomputed by lanes, and the bfloat16 operands are packed from lanes.
  static constexpr bool kSourcesByRows = !Pointwise::kHasMemory && !bf16;

 public:
  Backward(const Sequence<T>& sequence, int64_t first_row, int64_t count, Arena<T>& arena, T* weight_grads)
      : Base(sequence, first_row, count, arena), layout_(gradient_layout<T, Pointwise, bf16>(sequence)),
        columns_(layout_.columns), hidden_(arena.allocate(count * padded)),
        carry_(arena.allocate(Pointwise::kHasCarry ? count * padded : 0)),
        memory_(arena.allocate(blocks.count * memory * width)), sums_(arena.allocate(blocks.sum_rows() * kPanel<T>)),
        zeros_(arena.allocate(bf16 ? 0 : kPanel<T>)),
        weight_uh_(arena.allocate(Pointwise::kHasMemory ? sequence.memories * padded : 0)),
        gradients_(arena.allocate(Pointwise::kGradients * layout_.panels * sequence.chunk_steps * count * kPanel<T>)),
        source_stride_(kSourcesByRows ? round_up(columns_.count, width) : columns_.count * width),
        sources_(arena.allocate((1 + sequence.chunk_steps) * (kSourcesByRows ? count : blocks.count) * source_stride_)),
        product_steps_(kProductRows / count > 1 ? kProductRows / count : 1),
        product_rows_(round_up(kProductRows > count ? kProductRows : count, kTileDepth)),
        packed_(arena.allocate(
            bf16             ? product_rows_ * kTileRows + kTileDepth
            : kSourcesByRows ? 0
                             : product_rows_ * width)),
        bf16_products_(arena.allocate(bf16 ? Pointwise::kGradients * layout_.panels * product_rows_ * kPanel<T> / 2 : 0)),
        bf16_gradients_(Base::allocate_bf16(arena, bf16_row_size())), weight_grads_(weight_grads) {}

  void run() {
    const typename Base::Unit unit(s.amx);
    start();
    const int64_t longest = Base::longest();
    if (s.grad_inputs != nullptr) {
      for (int64_t r = 0; r < rows; ++r) std::memset(grad_input(r, longest), 0, (s.steps - longest) * s.channels * sizeof(T));
    }
    for (int64_t chunk = (longest - 1) / s.chunk_steps; chunk >= 0 && longest > 0; --chunk) {
      begin_ = chunk * s.chunk_steps;
      const int64_t end = begin_ + s.chunk_steps < longest ? begin_ + s.chunk_steps : longest;
      if (Pointwise::kHasMemory && columns_.hidden > 0) recompute_memory(end);
      int64_t first_step = end;
      for (int64_t t = end - 1; t >= begin_; --t) {
        Base::find_valid_rows(t);
        load_sources(t);
        if (gates_backward(t)) {
          products_backward(unit, t);
          first_step = t;
        } else if (s.grad_inputs != nullptr) {
          for (int64_t r = 0; r < rows; ++r) std::memset(grad_input(r, t), 0, s.channels * sizeof(T));
        }
        if constexpr (Pointwise::kHasMemory) memory_backward(t);
        limit(hidden_, rows * padded);
        if constexpr (Pointwise::kHasCarry) limit(carry_, rows * padded);
        if constexpr (Pointwise::kHasMemory) limit(memory_, blocks.count * memory * width);
      }
      add_weight_gradients(unit, first_step - begin_, end - begin_);
    }
    Base::store_rows(hidden_, s.grad_hidden_before);
    if constexpr (Pointwise::kHasCarry) Base::store_rows(carry_, s.grad_memory_before);
    if constexpr (Pointwise::kHasMemory) Base::scatter(memory_, memory, s.grad_memory_before, memory);
  }

 private:
  const T* hidden_before(int64_t row, int64_t t) const {
    return t == 0 ? s.hidden_before + (first + row) * s.hidden : s.outputs + ((first + row) * s.steps + t - 1) * s.output_width;
  }
  const T* saved(int64_t row, int64_t t) const {
    return s.saved + (t * s.batch + first + row) * Pointwise::kSaved * Base::saved_stride;
  }
  const T* grad_output(int64_t row, int64_t t) const { return s.grad_outputs + ((first + row) * s.steps + t) * s.output_width; }
  T* grad_input(int64_t row, int64_t t) const { return s.grad_inputs + ((first + row) * s.steps + t) * s.channels; }
  // Sources of step t of a block; at begin_ - 1 only the memory before the chunk.
  T* sources(int64_t t, int64_t block) const { return sources_ + ((t + 1 - begin_) * blocks.count + block) * source_stride_; }
  T* row_sources(int64_t t, int64_t row) const { return sources_ + ((t + 1 - begin_) * rows + row) * source_stride_; }

  void start() {
    std::memset(hidden_, 0, rows * padded * sizeof(T));
    if (s.grad_hidden_after != nullptr) Base::load_rows(s.grad_hidden_after, hidden_);
    if constexpr (Pointwise::kHasCarry) {
      std::memset(carry_, 0, rows * padded * sizeof(T));
      if (s.grad_memory_after != nullptr) Base::load_rows(s.grad_memory_after, carry_);
    }
    if (!bf16) std::memset(zeros_, 0, kPanel<T> * sizeof(T));
    Base::clear_bf16(bf16_gradients_, bf16_row_size());
    std::memset(gradients_, 0, Pointwise::kGradients * layout_.panels * s.chunk_steps * rows * kPanel<T> * sizeof(T));
    if constexpr (Pointwise::kHasMemory) {
      std::memset(memory_, 0, blocks.count * memory * width * sizeof(T));
      if (s.grad_memory_after != nullptr) Base::gather(s.grad_memory_after, memory, memory, memory_);
      if (s.weight_uh != nullptr) {
        for (int64_t m = 0; m < s.memories; ++m) {
          for (int64_t u = 0; u < padded; ++u) weight_uh_[m * padded + u] = u < s.hidden ? s.weight_uh[m * s.hidden + u] : T(0);
        }
      }
    }
  }

  // Keeps the gradients of a state within what products can take without an overflow. Of a state that rests at zero, an
  // unstable one, they grow without bound from step to step back, and the weights' gradients, products with that state, are
  // zero; with infinity they would be NaN.
  void limit(T* gradients, int64_t count) {
    for (int64_t k = 0; k < count; k += width) {
      store<T>(gradients + k, clamp<T>(load<T>(gradients + k), -kLargestGradient<T>, kLargestGradient<T>));
    }
  }

  // Input of memory m of a block at step t.
  Vector<T> load_memory_input(int64_t t, int64_t b, int64_t m) const {
    const T* const from = s.memory_inputs + (t * s.batch + first + blocks.start(b)) * s.memories + m;
    Vector<T> u{};
    for (int r = 0; r < blocks.rows(b); ++r) u[r] = from[r * s.memories];
    return u;
  }

  void recompute_memory(int64_t end) {
    const T* const checkpoint = s.checkpoints + (begin_ / s.chunk_steps * s.batch + first) * memory;
    for (int64_t b = 0; b < blocks.count; ++b) {
      rows_to_lanes<T>(checkpoint + blocks.start(b) * memory, memory, blocks.rows(b), memory, sources(begin_ - 1, b));
    }
    for (int64_t t = begin_; t < end; ++t) {
      Base::find_valid_rows(t);
      for (int64_t b = 0; b < blocks.count; ++b) {
        for (int64_t m = 0; m < s.memories; ++m)
          store<T>(memory_input + (b * s.memories + m) * width, load_memory_input(t, b, m));
      }
      Base::memory_update.prepare(t);
      Base::memory_update.update(t, sources(t - 1, 0), sources(t, 0), source_stride_, memory_input, valid);
    }
  }

  // Loads the sources of a step except the memory. Padding may hold NaN, so its inputs are replaced by zeros.
  void load_sources(int64_t t) {
    if constexpr (kSourcesByRows) {
      for (int64_t b = 0; b < blocks.count; ++b) {
        for (int r = 0; r < blocks.rows(b); ++r) {
          const int64_t row = blocks.start(b) + r;
          T* const to = row_sources(t, row);
          if constexpr (Pointwise::kResetBefore) load_reset_row(row, t, valid[b][r], to);
          if (columns_.bias > columns_.hidden) std::memcpy(to + columns_.hidden, hidden_before(row, t), s.hidden * sizeof(T));
          to[columns_.bias] = T(1);
          if (valid[b][r]) {
            std::memcpy(to + columns_.input, Base::input(row, t), s.channels * sizeof(T));
          } else {
            std::memset(to + columns_.input, 0, s.channels * sizeof(T));
          }
          round_operands<T>(to, columns_.count, s.rounds);
          if (t > 0) prefetch(Base::input(row, t - 1), s.channels);
        }
      }
      return;
    }
    for (int64_t b = 0; b < blocks.count; ++b) {
      T* const to = sources(t, b);
      const int64_t row = blocks.start(b);
      if constexpr (Pointwise::kResetBefore) load_reset_lanes(t, b, to);
      if (columns_.bias > columns_.hidden) {
        const int64_t stride = t == 0 ? s.hidden : s.steps * s.output_width;
        rows_to_lanes<T>(hidden_before(row, t), stride, blocks.rows(b), s.hidden, to + columns_.hidden * width);
      }
      store<T>(to + columns_.bias * width, broadcast<T>(T(1)));
      rows_to_lanes<T>(Base::input(row, t), s.input_row, blocks.rows(b), s.channels, to + columns_.input * width);
      for (int r = 0; t > 0 && r < blocks.rows(b); ++r) prefetch(Base::input(row + r, t - 1), s.channels);
      for (int64_t k = columns_.input; k < columns_.count; ++k) {
        store<T>(to + k * width, valid[b] ? load<T>(to + k * width) : Vector<T>{});
      }
    }
  }

  // r h of a row, zero if it is not valid.
  void load_reset_row(int64_t row, int64_t t, bool is_valid, T* to) const {
    if (!is_valid) {
      std::memset(to, 0, s.hidden * sizeof(T));
      return;
    }
    const T *const r = saved(row, t), *const h = hidden_before(row, t);
    for (int64_t u = 0; u < s.hidden; u += width) {
      store_partial<T>(to + u, load<T>(r + u) * load_partial<T>(h + u, s.hidden - u), s.hidden - u);
    }
  }

  // The same by lanes, for the rows of a block.
  void load_reset_lanes(int64_t t, int64_t b, T* to) const {
    const int64_t row = blocks.start(b), stride = t == 0 ? s.hidden : s.steps * s.output_width;
    for (int64_t u = 0; u < s.hidden; u += width) {
      Vector<T> r[width], h[width];
      load_lanes<T>(saved(row, t) + u, Pointwise::kSaved * Base::saved_stride, blocks.rows(b), s.hidden - u, r);
      load_lanes<T>(hidden_before(row, t) + u, stride, blocks.rows(b), s.hidden - u, h);
      for (int c = 0; c < width && u + c < s.hidden; ++c) store<T>(to + (u + c) * width, valid[b] ? r[c] * h[c] : Vector<T>{});
    }
  }

  // Gradients of the gates' sums. Returns false if all are zero: the gradient from later steps has vanished.
  bool gates_backward(int64_t t) {
    Mask nonzero{};
    // Local copies, because a vector store may alias anything that is read through a pointer.
    const Sequence<T> sequence = s;
    const int64_t saved_stride = Base::saved_stride, units = padded,
                  step_stride = sequence.batch * Pointwise::kSaved * saved_stride;
    const int64_t panel_size = sequence.chunk_steps * rows * kPanel<T>, section_size = layout_.panels * panel_size;
    T *const hidden = hidden_, *const carry = carry_;
    for (int64_t b = 0; b < blocks.count; ++b) {
      const int count = blocks.rows(b);
      for (int r = 0; r < count; ++r) {
        const int64_t row = blocks.start(b) + r;
        T* const to = gradients_ + ((t - begin_) * rows + row) * kPanel<T>;
        const bool is_valid = valid[b][r];
        const T* const saved_gates = saved(row, t);
        const T* const before = hidden_before(row, t);
        const T* const out = sequence.grad_outputs == nullptr ? nullptr : grad_output(row, t);
        if (t > 1) {
          prefetch(hidden_before(row, t - 1), sequence.hidden);
          if (out != nullptr) prefetch(out - sequence.output_width, sequence.hidden);
        }
        for (int64_t u = 0; u < units; u += width) {
          const int64_t at = offset(b, r, u), remaining = sequence.hidden - u;
          Vector<T> dz[Pointwise::kGradients];
          if (is_valid) {
            Vector<T> values[Pointwise::kSaved], dc{}, c_before{};
            for (int k = 0; k < Pointwise::kSaved; ++k) {
              values[k] = load<T>(saved_gates + k * saved_stride + u);
              if (t > 1) __builtin_prefetch(saved_gates + k * saved_stride + u - 2 * step_stride, 0, 2);
            }
            Vector<T> dh = load<T>(hidden + at);
            if (out != nullptr) dh += load_partial<T>(out + u, remaining);
            if constexpr (Pointwise::kHasCarry) {
              dc = load<T>(carry + at);
              c_before = t == 0 ? load_partial<T>(sequence.memory_before + (first + row) * sequence.hidden + u, remaining)
                                : load<T>(saved(row, t - 1) + (Pointwise::kSaved - 1) * saved_stride + u);
            }
            Pointwise::backward(sequence, values, load_partial<T>(before + u, remaining), c_before, dh, dc, dz);
            store<T>(hidden + at, dh);
            if constexpr (Pointwise::kHasCarry) store<T>(carry + at, dc);
          } else {
            for (int k = 0; k < Pointwise::kGradients; ++k) dz[k] = Vector<T>{};
          }
          for (int k = 0; k < Pointwise::kGradients; ++k) {
            Mask bits;
            std::memcpy(&bits, &dz[k], sizeof bits);
            nonzero |= bits;
            if constexpr (bf16) {
              const int64_t column = k * tile_groups(sequence.hidden) * kTileDepth + u;
              store_bfloat16(Base::bf16_at(bf16_gradients_, bf16_row_size(), b, r, column), dz[k]);
            }
            store<T>(
                to + k * section_size + u / kPanel<T> * panel_size + u % kPanel<T>, as_operand<T>(dz[k], sequence.rounds));
          }
        }
      }
    }
    bool any = false;
    for (int j = 0; j < width; ++j) any = any || nonzero[j] << 1 != 0;  // ignores the sign of zero
    return any;
  }

  // Numbers of a row of bf16_gradients_.
  int64_t bf16_row_size() const { return bf16 ? Pointwise::kGradients * tile_groups(s.hidden) * kTileDepth : 0; }

  void products_backward(const typename Base::Unit& unit, int64_t t) {
    const T* w = s.packed;
    for (int source = 0; source < kSources; ++source) {
      const int64_t all = gradient_depth<T, Pointwise>(s, source);
      const int first_section = Pointwise::first_section(Source(source)), products = Pointwise::products(Source(source));
      for (int64_t column = 0; column < all; column += kPanel<T>) {
        if constexpr (bf16) {
          const int64_t groups = tile_groups(s.hidden);
          Base::template multiply_bf16<true>(
              unit, bf16_gradients_, Pointwise::kGradients * groups, first_section * groups, products * groups, w, sums_);
          w += products * groups * kGroup / 2;
        } else {
          Operand<T> operands[Pointwise::kGradients];
          for (int p = 0; p < products; ++p) {
            const int64_t section = first_section + p, panel_size = s.chunk_steps * rows * kPanel<T>;
            operands[p] = {
                gradients_ + section * layout_.panels * panel_size + (t - begin_) * rows * kPanel<T>, Layout::by_panels,
                s.hidden, panel_size};
          }
          multiply<T>(blocks, operands, products, all - column, w, zeros_, sums_);
          w += products * s.hidden * kPanel<T>;
        }
        for (int64_t k = column; k < column + kPanel<T> && k < all; k += width) {
          if (source == from_memory) {
            if constexpr (Pointwise::kResetBefore) {
              reset_backward(t, k, k - column);
            } else {
              add_to_memory(k, k - column);
            }
          } else if (source == from_hidden) {
            add_to_hidden(k, k - column);
          } else {
            store_input_gradient(t, k, k - column);
          }
        }
      }
    }
    if (s.grad_inputs != nullptr && s.weight[from_input] == nullptr) {
      for (int64_t r = 0; r < rows; ++r) std::memset(grad_input(r, t), 0, s.channels * sizeof(T));
    }
  }

  void store_input_gradient(int64_t t, int64_t k, int64_t column) {
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int r = 0; r < blocks.rows(b); ++r) {
        const T* const from = sums_ + (blocks.sum_row(b) + r) * kPanel<T> + column;
        T* const to = grad_input(blocks.start(b) + r, t) + k;
        store_partial<T>(to, load<T>(from), s.channels - k);
        if (t > 0) prefetch_for_write(to - s.channels, width);
      }
    }
  }

  void add_to_memory(int64_t k, int64_t column) {
    for (int64_t b = 0; b < blocks.count; ++b) {
      Vector<T> tile[width];
      load_lanes<T>(sums_ + blocks.sum_row(b) * kPanel<T> + column, kPanel<T>, blocks.rows(b), width, tile);
      T* const to = memory_ + (b * memory + k) * width;
      for (int c = 0; c < width && k + c < memory; ++c) store<T>(to + c * width, load<T>(to + c * width) + tile[c]);
    }
  }

  void add_to_hidden(int64_t unit, int64_t column) {
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int r = 0; r < blocks.rows(b); ++r) {
        T* const to = hidden_ + offset(b, r, unit);
        store<T>(to, load<T>(to) + load<T>(sums_ + (blocks.sum_row(b) + r) * kPanel<T> + column));
      }
    }
  }

  // From the gradient of r h, W units from `unit` on, to those of the hidden state and of the sums of r, section 1.
  void reset_backward(int64_t t, int64_t unit, int64_t column) {
    const int64_t panel_size = s.chunk_steps * rows * kPanel<T>;
    T* const section = gradients_ + layout_.panels * panel_size + unit / kPanel<T> * panel_size + unit % kPanel<T>;
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int r = 0; r < blocks.rows(b); ++r) {
        if (!valid[b][r]) continue;
        const int64_t row = blocks.start(b) + r, at = offset(b, r, unit);
        Vector<T> dh = load<T>(hidden_ + at);
        const Vector<T> dr = Pointwise::reset_backward(
            load<T>(sums_ + (blocks.sum_row(b) + r) * kPanel<T> + column), load<T>(saved(row, t) + unit),
            load_partial<T>(hidden_before(row, t) + unit, s.hidden - unit), dh);
        store<T>(hidden_ + at, dh);
        store<T>(section + ((t - begin_) * rows + row) * kPanel<T>, as_operand<T>(dr, s.rounds));
        if constexpr (bf16) {
          store_bfloat16(Base::bf16_at(bf16_gradients_, bf16_row_size(), b, r, tile_groups(s.hidden) * kTileDepth + unit), dr);
        }
      }
    }
  }

  void memory_backward(int64_t t) {
    if (s.output_width != s.hidden && s.grad_outputs != nullptr) add_output_gradient(t);
    Base::memory_update.prepare(t);
    Base::memory_update.adjoint(t, memory_, memory_, memory * width, memory_input, valid);
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int64_t m = 0; m < s.memories; ++m) {
        const Vector<T> u = load_memory_input(t, b, m);
        // Padding may hold NaN, and 0 * NaN is NaN.
        const Vector<T> product = load<T>(memory_input + (b * s.memories + m) * width) * derivative<T>(s.memory_activation, u);
        const Vector<T> du = valid[b] ? product : Vector<T>{};
        if (s.bias_u != nullptr) add(weight_grads_ + layout_.bias_u + m * width, du);
        if (s.weight_ux != nullptr) {
          T* const total = weight_grads_ + layout_.weight_ux + m * s.channels * width;
          for (int64_t k = 0; k < s.channels; ++k) {
            add(total + k * width, du * load<T>(sources(t, b) + (columns_.input + k) * width));
          }
        }
        if (s.weight_um != nullptr) {
          T* const chain = memory_ + (b * memory + m * s.order) * width;
          T* const total = weight_grads_ + layout_.weight_um + m * s.order * width;
          const T* const before = sources(t - 1, b) + m * s.order * width;
          for (int64_t n = 0; n < s.order; ++n) {
            add(chain + n * width, s.weight_um[m * s.order + n] * du);
            add(total + n * width, du * load<T>(before + n * width));
          }
        }
        for (int r = 0; r < blocks.rows(b); ++r) {
          if (valid[b][r]) memory_input_backward(t, b, r, m, du[r]);
        }
      }
    }
  }

  SEQMEM_INLINE void add(T* to, const Vector<T>& value) { store<T>(to, load<T>(to) + value); }

  // From the gradient of the input of memory m of row r to the gradients of the hidden state and of the cell's input.
  void memory_input_backward(int64_t t, int64_t b, int r, int64_t m, T du) {
    const int64_t row = blocks.start(b) + r;
    if (s.weight_uh != nullptr) {
      const T* const before = hidden_before(row, t);
      T* const total = weight_grads_ + layout_.weight_uh + m * padded;
      for (int64_t u = 0; u < padded; u += width) {
        add(hidden_ + offset(b, r, u), du * load<T>(weight_uh_ + m * padded + u));
        add(total + u, du * load_partial<T>(before + u, s.hidden - u));
      }
    }
    if (s.weight_ux != nullptr && s.grad_inputs != nullptr) {
      for (int64_t k = 0; k < s.channels; ++k) grad_input(row, t)[k] += du * s.weight_ux[m * s.channels + k];
    }
  }

  void add_output_gradient(int64_t t) {
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int64_t k = 0; k < memory; k += width) {
        Vector<T> tile[width];
        load_lanes<T>(
            grad_output(blocks.start(b), t) + s.hidden + k, s.steps * s.output_width, blocks.rows(b), memory - k, tile);
        T* const to = memory_ + (b * memory + k) * width;
        for (int c = 0; c < width && k + c < memory; ++c) add(to + c * width, valid[b] ? tile[c] : Vector<T>{});
      }
    }
  }

  // Adds the weight gradients of steps [begin, steps) of the chunk: for a few steps at a time, a tile of packed sources times
  // every panel of gradients.
  void add_weight_gradients(const typename Base::Unit& unit, int64_t begin, int64_t steps) {
    const Blocks tiles(columns_.count, bf16 ? 2 * kTileRows : kMaxRows<T>);
    for (int64_t step = begin; step < steps; step += product_steps_) {
      const int64_t count = steps - step < product_steps_ ? steps - step : product_steps_;
      if constexpr (bf16) this->gradients_to_bf16(step, count * rows);
      for (int64_t tile = 0; tile < tiles.count; ++tile) {
        const int64_t column = bf16 ? tile * 2 * kTileRows : tiles.start(tile);
        const int64_t end = bf16 ? column + 2 * kTileRows : column + tiles.rows(tile);
        if constexpr (bf16) {
          this->sources_to_bf16(step, count, column, end);
        } else if constexpr (!kSourcesByRows) {
          pack_sources(begin_ + step, count, column, end);
        }
        for (int section = 0; section < Pointwise::kGradients; ++section) {
          if (!multiplies(section, column, end)) continue;
          for (int64_t panel = 0; panel < layout_.panels; ++panel) {
            const int64_t index = section * layout_.panels + panel;
            T* const total = weight_grads_ + layout_.gates + (index * layout_.rows + column) * kPanel<T>;
            if constexpr (bf16) {
              this->add_bf16_products(unit, end, column, count * rows, index, total);
            } else {
              const Piece<T> piece =
                  kSourcesByRows
                      ? Piece<T>{row_sources(begin_ + step, 0) + column, Layout::by_lanes, count * rows, source_stride_}
                      : Piece<T>{packed_, Layout::by_lanes, count * rows};
              multiply_block<T>(
                  tiles.rows(tile), s.hidden - panel * kPanel<T>, &piece, 1,
                  gradients_ + (index * s.chunk_steps + step) * rows * kPanel<T>, total, kPanel<T>, total);
            }
          }
        }
      }
    }
  }

  // Whether a section of gradients has weights in columns [begin, end) of the sources; the bias is in all sections.
  bool multiplies(int section, int64_t begin, int64_t end) const {
    const int64_t starts[kSources] = {0, columns_.hidden, columns_.input};
    const int64_t ends[kSources] = {columns_.hidden, columns_.bias, columns_.count};
    if (begin <= columns_.bias && columns_.bias < end) return true;
    for (int source = 0; source < kSources; ++source) {
      const int from = Pointwise::first_section(Source(source)), to = from + Pointwise::products(Source(source));
      if (begin < ends[source] && starts[source] < end && from <= section && section < to) return true;
    }
    return false;
  }

#if SEQMEM_VECTOR_BYTES == 64
  // Converts the gradients of `depth` rows from step `step` of the chunk on to the layout of tiles.
  void gradients_to_bf16(int64_t step, int64_t depth) {
    const int64_t groups = tile_groups(depth);
    for (int64_t index = 0; index < Pointwise::kGradients * layout_.panels; ++index) {
      const T* const from = gradients_ + (index * s.chunk_steps + step) * rows * kPanel<T>;
      Bfloat16* const to = reinterpret_cast<Bfloat16*>(bf16_products_) + index * product_rows_ * kTileColumns;
      for (int64_t k = 0; k < groups * kTileDepth; k += 2) {
        Bfloat16* const pair = to + k / kTileDepth * kGroup + k % kTileDepth / 2 * kTileColumns;
        for (int part = 0; part < 2; ++part) {
          const T* const line = from + k * kPanel<T> + part * width;
          store_pair(
              pair + part * (kGroup / 2), k < depth ? load<T>(line) : Vector<T>{},
              k + 1 < depth ? load<T>(line + kPanel<T>) : Vector<T>{});
        }
      }
    }
  }

  // Converts sources [column, end) of `count` steps to (sources, rows of all steps), padded with zeros to whole groups.
  void sources_to_bf16(int64_t step, int64_t count, int64_t column, int64_t end) {
    for (int64_t n = column; n < end; ++n) {
      Bfloat16* const first = reinterpret_cast<Bfloat16*>(packed_) + (n - column) * product_rows_;
      Bfloat16* to = first;
      for (int64_t i = 0; i < count * blocks.count; ++i) {
        const T* const from = sources(begin_ + step, 0) + i * source_stride_ + n * width;
        store_bfloat16(to, n < columns_.count ? load<T>(from) : Vector<T>{});
        to += blocks.rows(i % blocks.count);
      }
      std::memset(to, 0, (first + round_up(count * rows, kTileDepth) - to) * sizeof(Bfloat16));
    }
  }

  void add_bf16_products(const MatrixUnit& unit, int64_t end, int64_t column, int64_t depth, int64_t index, T* total) const {
    const int64_t tile_rows = (end < layout_.rows ? end : layout_.rows) - column;
    unit.multiply<false>(
        tile_rows / kTileRows, kTileRows, reinterpret_cast<const Bfloat16*>(packed_), kTileRows * product_rows_, product_rows_,
        kTileDepth, reinterpret_cast<const Bfloat16*>(bf16_products_) + index * product_rows_ * kTileColumns,
        tile_groups(depth), total);
  }
#endif

  // Packs sources [column, end) of `count` steps as (steps, rows, W).
  void pack_sources(int64_t t, int64_t count, int64_t column, int64_t end) {
    T* to = packed_;
    for (int64_t i = 0; i < count * blocks.count; ++i) {
      const T* const from = sources(t, 0) + i * source_stride_ + column * width;
      Vector<T> tile[width];
      for (int n = 0; n < width; ++n) {
        tile[n] = column + n < end ? as_operand<T>(load<T>(from + n * width), s.rounds) : Vector<T>{};
      }
      transpose<T>(tile);
      for (int r = 0; r < blocks.rows(i % blocks.count); ++r, to += width) store<T>(to, tile[r]);
    }
  }

  const GradientLayout layout_;
  const Columns columns_;
  T* const hidden_;  // gradients of the states before the step: by rows, as the next
  T* const carry_;
  T* const memory_;  // by lanes
  T* const sums_;
  T* const zeros_;
  T* const weight_uh_;
  T* const gradients_;           // of the gates' sums at the steps of the chunk, (kGradients, panels, steps, rows, 2W)
  const int64_t source_stride_;  // numbers of the sources of one step and block, or row
  T* const sources_;             // (1 + steps, blocks, columns, W), or (1 + steps, rows, columns)
  const int64_t product_steps_;  // steps per product that adds to the weight gradients
  const int64_t product_rows_;   // bound on the rows of these steps
  T* const packed_;
  T* const bf16_products_;   // gradients of the steps of a product, in tiles
  T* const bf16_gradients_;  // gradients of this step, each section padded to whole groups
  T* const weight_grads_;
  int64_t begin_ = 0;
};

}  // namespace seqmem::SEQMEM_ISA
