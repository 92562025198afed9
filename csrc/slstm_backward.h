// Backward loop of an sLSTM: runs some rows of a head through all steps in reverse, chunk by chunk.
#pragma once

#include "slstm_group.h"

namespace seqmem::SEQMEM_ISA {

// Keeps the factors of the weight gradients for the steps of one chunk: the gradients of the gates' sums, and y before.
template <typename T>
class SlstmBackward : SlstmGroup<T> {
  static constexpr int64_t kProductRows = 400;  // rows of (step, batch) per product that adds to the weight gradients

  using Base = SlstmGroup<T>;
  using Base::blocks, Base::offset, Base::padded, Base::rows, Base::s, Base::width, Base::zeros;

 public:
  SlstmBackward(
      const Slstm<T>& sequence, int64_t head, int64_t first_row, int64_t count, Arena<T>& arena, T* weight_grads)
      : Base(sequence, head, first_row, count, arena), sums_(arena.allocate(count * kPanel<T>)),
        panel_size_(sequence.chunk_steps * count * kPanel<T>), panels_((sequence.size + kPanel<T> - 1) / kPanel<T>),
        gradients_(arena.allocate(kSlstmGates * panels_ * panel_size_)),
        sources_(arena.allocate(sequence.chunk_steps * count * padded)),
        memories_(arena.allocate((sequence.chunk_steps + 1) * count * 2 * padded)), weight_grads_(weight_grads) {
    for (T*& part : state_) part = arena.allocate(count * padded);
  }

  void run() {
    std::memset(zeros, 0, kPanel<T> * sizeof(T));
    std::memset(gradients_, 0, kSlstmGates * panels_ * panel_size_ * sizeof(T));
    for (int part = 0; part < kSlstmParts; ++part) {
      std::memset(state_[part], 0, rows * padded * sizeof(T));
      if (s.grad_after[part] != nullptr) Base::load_rows(s.grad_after[part], state_[part]);
    }
    const auto first_memory = [&](int64_t row, int part) { return s.before[part] + Base::of_state(row); };
    correct_stabilizer(T(-1), [&](int64_t row, int part) -> const T* {
      return Base::length(row) == 0 ? first_memory(row, part) : nullptr;
    });
    const int64_t longest = Base::longest();
    clear_gradients(longest, s.steps);
    for (int64_t chunk = (longest - 1) / s.chunk_steps; chunk >= 0 && longest > 0; --chunk) {
      begin_ = chunk * s.chunk_steps;
      const int64_t end = begin_ + s.chunk_steps < longest ? begin_ + s.chunk_steps : longest;
      memories_forward(end);
      correct_stabilizer(T(-1), [&](int64_t row, int part) -> const T* {
        const int64_t length = Base::length(row);
        return begin_ < length && length <= end ? memory(row, length, part) : nullptr;
      });
      for (int64_t t = end - 1; t >= begin_; --t) {
        gates_backward(t);
        products_backward(t);
      }
      add_weight_gradients(end - begin_);
    }
    correct_stabilizer(T(1), first_memory);
    for (int part = 0; part < kSlstmParts; ++part) Base::store_rows(state_[part], s.grad_before[part]);
    finish_streams();
  }

 private:
  // c or n before step t of the chunk.
  T* memory(int64_t row, int64_t t, int part) const {
    return memories_ + (((t - begin_) * rows + row) * 2 + part - slstm_memory) * padded;
  }

  // Computes c and n from step begin_ to `end`.
  void memories_forward(int64_t end) const {
    for (int64_t row = 0; row < rows; ++row) {
      const T* const from = Base::checkpoint(row, begin_);
      T* const to = memory(row, begin_, slstm_memory);
      for (int64_t u = 0; u < padded; u += width) {
        store<T>(to + u, load<T>(from + u));
        store<T>(to + padded + u, load<T>(from + s.saved_stride() + u));
      }
    }
    const int64_t stride = s.saved_stride();
    for (int64_t t = begin_; t < end; ++t) {
      for (int64_t row = 0; row < rows; ++row) {
        if (!Base::is_valid(row, t)) continue;
        const T* const from = Base::saved(row, t);
        const T* const before = memory(row, t, slstm_memory);
        T* const to = memory(row, t + 1, slstm_memory);
        for (int64_t u = 0; u < padded; u += width) {
          Vector<T> c = load<T>(before + u), n = load<T>(before + padded + u);
          slstm_memory_step<T>(load<T>(from + u), load<T>(from + stride + u), c, n);
          store<T>(to + u, c);
          store<T>(to + padded + u, n);
        }
      }
    }
  }

  // Adds sign * (c dc + n dn) to the gradient of m, with c and n of a row at `find(row, part)`, unless that is null.
  template <typename Find>
  void correct_stabilizer(T sign, const Find& find) {
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int r = 0; r < blocks.rows(b); ++r) {
        const int64_t row = blocks.start(b) + r;
        if (find(row, slstm_memory) == nullptr) continue;
        for (int64_t u = 0; u < padded; u += width) {
          const int64_t at = offset(b, r, u), remaining = s.size - u;
          Vector<T> sum = load<T>(state_[slstm_stabilizer] + at);
          for (int part = slstm_memory; part <= slstm_normalizer; ++part) {
            sum += sign * load<T>(state_[part] + at) * load_partial<T>(find(row, part) + u, remaining);
          }
          store<T>(state_[slstm_stabilizer] + at, sum);
        }
      }
    }
  }

  // Clears the gradients of the gates of steps [begin, end).
  void clear_gradients(int64_t begin, int64_t end) const {
    for (int64_t r = 0; s.grad_projected != nullptr && r < rows; ++r) {
      for (int64_t t = begin; t < end; ++t) {
        for (int gate = 0; gate < kSlstmGates; ++gate) {
          std::memset(s.grad_projected + Base::of_gates(r, t) + gate * s.units(), 0, s.size * sizeof(T));
        }
      }
    }
  }

  // Gradients of the gates' sums.
  void gates_backward(int64_t t) {
    const bool streams = kCanStream && s.streams && s.size % width == 0;
    for (int64_t b = 0; b < blocks.count; ++b) {
      for (int r = 0; r < blocks.rows(b); ++r) {
        const int64_t row = blocks.start(b) + r;
        T* const to = gradients_ + ((t - begin_) * rows + row) * kPanel<T>;
        T* const out = s.grad_projected == nullptr ? nullptr : s.grad_projected + Base::of_gates(row, t);
        T* const source = sources_ + ((t - begin_) * rows + row) * padded;
        const T* const grad = s.grad_outputs == nullptr ? nullptr : s.grad_outputs + Base::of_step(row, t);
        const T* const hidden_before =
            t == 0 ? s.before[slstm_hidden] + Base::of_state(row) : s.outputs + Base::of_step(row, t - 1);
        const bool is_valid = Base::is_valid(row, t);
        for (int64_t u = 0; u < padded; u += width) {
          const int64_t remaining = s.size - u;
          SlstmGradients<T> d{};
          if (is_valid) d = unit_gradients(row, t, u, offset(b, r, u), grad);
          prefetch(row, t, u, hidden_before, grad);
          for (int gate = 0; gate < kSlstmGates; ++gate) {
            store<T>(to + (gate * panels_ + u / kPanel<T>) * panel_size_ + u % kPanel<T>, d.gates[gate]);
            if (out != nullptr) store_units<T>(out + gate * s.units() + u, d.gates[gate], remaining, streams);
          }
          store<T>(source + u, load_partial<T>(hidden_before + u, remaining));
        }
      }
    }
  }

  // Prefetches the inputs of the step before t, for W units, and those of memories_forward in the chunk before.
  inline __attribute__((always_inline)) void prefetch(
      int64_t row, int64_t t, int64_t u, const T* hidden_before, const T* grad) const {
    const int64_t stride = s.saved_stride();
    if (t >= s.chunk_steps) {
      const T* const saved = Base::saved(row, t - s.chunk_steps) + u;
      for (int k = 0; k < 2; ++k) __builtin_prefetch(saved + k * stride);
    }
    if (t < 2) return;
    const T* const saved = Base::saved(row, t - 1) + u;
    for (int k = 2; k < kSlstmSaved; ++k) __builtin_prefetch(saved + k * stride);
    __builtin_prefetch(hidden_before + u - s.units());
    if (grad != nullptr) __builtin_prefetch(grad + u - s.units());
  }

  SlstmGradients<T> unit_gradients(int64_t row, int64_t t, int64_t u, int64_t at, const T* grad) {
    const int64_t remaining = s.size - u;
    const T* const from = Base::saved(row, t) + u;
    Vector<T> saved[kSlstmSaved];
#pragma GCC unroll 8
    for (int k = 0; k < kSlstmSaved; ++k) saved[k] = load<T>(from + k * s.saved_stride());
    SlstmGradients<T> d{};
    d.y = load<T>(state_[slstm_hidden] + at);
    if (grad != nullptr) d.y += load_partial<T>(grad + u, remaining);
    d.c = load<T>(state_[slstm_memory] + at);
    d.n = load<T>(state_[slstm_normalizer] + at);
    d.m = load<T>(state_[slstm_stabilizer] + at);
    const T* const memories = memory(row, t, slstm_memory) + u;
    slstm_backward_units<T>(saved, load<T>(memories), load<T>(memories + padded), d);
    const Vector<T> values[] = {d.y, d.c, d.n, d.m};
#pragma GCC unroll 8
    for (int part = 0; part < kSlstmParts; ++part) store<T>(state_[part] + at, values[part]);
    return d;
  }

  // Adds the products of the weights with the gradients of the gates' sums to the gradient of y before.
  void products_backward(int64_t t) {
    for (int64_t column = 0; column < s.size; column += kPanel<T>) {
      Operand<T> operands[kSlstmGates];
      for (int gate = 0; gate < kSlstmGates; ++gate) {
        T* const from = gradients_ + gate * panels_ * panel_size_ + (t - begin_) * rows * kPanel<T>;
        operands[gate] = {from, Layout::by_panels, s.size, panel_size_};
      }
      multiply<T>(blocks, operands, kSlstmGates, s.size - column, Base::packed_panel(column), zeros, sums_);
      for (int64_t b = 0; b < blocks.count; ++b) {
        for (int r = 0; r < blocks.rows(b); ++r) {
          for (int64_t u = column; u < column + kPanel<T> && u < padded; u += width) {
            T* const to = state_[slstm_hidden] + offset(b, r, u);
            store<T>(to, load<T>(to) + load<T>(sums_ + (blocks.start(b) + r) * kPanel<T> + u - column));
          }
        }
      }
    }
  }

  // Adds the weight gradients of the first `steps` steps of the chunk.
  void add_weight_gradients(int64_t steps) {
    const Blocks tiles(s.size, kMaxRows<T>);
    const int64_t product_steps = kProductRows / rows > 1 ? kProductRows / rows : 1;
    for (int64_t step = 0; step < steps; step += product_steps) {
      const int64_t depth = (steps - step < product_steps ? steps - step : product_steps) * rows;
      for (int64_t tile = 0; tile < tiles.count; ++tile) {
        const int64_t column = tiles.start(tile);
        const Piece<T> piece{sources_ + step * rows * padded + column, Layout::by_lanes, depth, padded};
        for (int64_t panel = 0; panel < kSlstmGates * panels_; ++panel) {
          T* const total = weight_grads_ + (panel * s.size + column) * kPanel<T>;
          multiply_block<T>(
              tiles.rows(tile), s.size - panel % panels_ * kPanel<T>, &piece, 1,
              gradients_ + panel * panel_size_ + step * rows * kPanel<T>, total, kPanel<T>, total);
        }
      }
    }
  }

  T* const sums_;
  const int64_t panel_size_, panels_;
  T* const gradients_;     // of the gates' sums at the steps of the chunk, (4, panels, steps, rows, 2W)
  T* const sources_;       // y before these steps, (steps, rows, padded)
  T* const memories_;      // c and n before these steps and after the last one, (steps + 1, rows, 2, padded)
  T* state_[kSlstmParts];  // gradients of the states before the step, by rows
  T* const weight_grads_;
  int64_t begin_ = 0;
};

}  // namespace seqmem::SEQMEM_ISA
