// Linear memory of the time loops: the update of blocks of rows, by lanes, and its adjoint.
//
// The transition is either quasiseparable with step sizes (quasiseparable.h), or a fixed step as a dense matrix.
#pragma once

#include <cstdint>

#include "quasiseparable.h"
#include "sequence.h"
#include "sequence_product.h"
#include "vector.h"

namespace seqmem::SEQMEM_ISA {

template <typename T>
class Memory {
 public:
  using Mask = typename VectorOf<T>::index;

  static int64_t workspace(const Sequence<T>& s, const Blocks& blocks) {
    if (s.step != nullptr) return blocks.sum_rows() * dense_columns(s) + 2 * kPanel<T>;
    const int64_t order = s.generators.order;
    if (s.generators.triangular) return s.per_row_step_sizes ? 0 : TriangularTable<T>::size(order);
    const int64_t table =
        s.per_row_step_sizes ? EliminationTable<T, true>::size(order) : EliminationTable<T, false>::size(order);
    return order * kLanes<T> + table;
  }

  Memory(const Sequence<T>& sequence, const Blocks& blocks, int64_t first, T* workspace)
      : s_(sequence), blocks_(blocks), first_(first), workspace_(workspace) {}

  // Computes what all rows share of step t.
  void prepare(int64_t t) {
    if (s_.step != nullptr || s_.per_row_step_sizes) return;
    dt_ = s_.step_sizes[t];
    if (starts()) return;
    if (s_.generators.triangular) {
      TriangularTable<T>(workspace_, order()).fill(s_.generators, dt_, s_.alpha);
    } else {
      EliminationTable<T, false>(workspace_, order()).fill(s_.generators, dt_ * s_.alpha);
    }
  }

  // One step of the memory (M, N, W) of each block; blocks are `stride` numbers apart. memory_input is (blocks, M, W). Rows
  // that are not valid keep their memory. `from` and `to` may alias.
  void update(int64_t t, const T* from, T* to, int64_t stride, const T* memory_input, const Mask* valid) const {
    run<false>(t, from, to, stride, const_cast<T*>(memory_input), valid);
  }

  // From the gradient of the new memory to the gradients of the previous memory and of the memory input.
  void adjoint(int64_t t, const T* from, T* to, int64_t stride, T* memory_input, const Mask* valid) const {
    run<true>(t, from, to, stride, memory_input, valid);
  }

 private:
  static constexpr int kInterleaved = 4;

  static int64_t dense_columns(const Sequence<T>& s) { return s.memories * round_up(s.order, kPanel<T>); }
  int64_t order() const { return s_.order; }
  bool starts() const { return dt_ > 3e38; }
  // A chain is one memory of one block: a serial recurrence along the order.
  int64_t chains() const { return blocks_.count * s_.memories; }
  // Offset of a chain.
  int64_t offset(int64_t chain, int64_t stride) const {
    return chain / s_.memories * stride + chain % s_.memories * s_.order * kLanes<T>;
  }

  template <bool adjoint>
  void run(int64_t t, const T* from, T* to, int64_t stride, T* memory_input, const Mask* valid) const {
    if (s_.step != nullptr) return dense<adjoint>(from, to, stride, memory_input, valid);
    for (int64_t chain = 0; chain < chains();) {
      if (s_.per_row_step_sizes) {
        per_row<adjoint>(t, chain, from, to, stride, memory_input, valid[chain / s_.memories]);
        ++chain;
      } else if (starts()) {
        start<adjoint>(chain, from, to, stride, memory_input, valid[chain / s_.memories]);
        ++chain;
      } else if (!s_.generators.triangular) {
        general<adjoint>(chain, from, to, stride, memory_input, valid[chain / s_.memories]);
        ++chain;
      } else if (chains() - chain >= kInterleaved) {
        triangular<adjoint, kInterleaved>(chain, from, to, stride, memory_input, valid);
        chain += kInterleaved;
      } else {
        triangular<adjoint, 1>(chain, from, to, stride, memory_input, valid);
        ++chain;
      }
    }
  }

  template <bool adjoint, int count>
  void triangular(int64_t chain, const T* from, T* to, int64_t stride, T* memory_input, const Mask* valid) const {
    const T* x[count];
    T *y[count], *input[count];
    Mask mask[count];
    for (int c = 0; c < count; ++c) {
      x[c] = from + offset(chain + c, stride);
      y[c] = to + offset(chain + c, stride);
      input[c] = memory_input + (chain + c) * kLanes<T>;
      mask[c] = valid[(chain + c) / s_.memories];
    }
    triangular_step<T, adjoint, count>(s_.generators, TriangularTable<T>(workspace_, order()), x, y, input, mask);
  }

  template <bool adjoint>
  void general(int64_t chain, const T* from, T* to, int64_t stride, T* memory_input, const Mask& valid) const {
    const T* const x = from + offset(chain, stride);
    T *const y = to + offset(chain, stride), *const input = memory_input + chain * kLanes<T>;
    const EliminationTable<T, false> table(workspace_, order());
    T* const z = workspace_ + EliminationTable<T, false>::size(order());
    const StepSize<T, false> step{T(dt_), T(dt_ * s_.alpha), T(dt_ - dt_ * s_.alpha), {}};
    if constexpr (adjoint) {
      store<T>(input, general_adjoint<T, false>(s_.generators, table, step, x, y, valid, z));
    } else {
      general_step<T, false>(s_.generators, table, step, x, y, load<T>(input), valid, z);
    }
  }

  template <bool adjoint>
  void start(int64_t chain, const T* from, T* to, int64_t stride, T* memory_input, const Mask& valid) const {
    constexpr int width = kLanes<T>;
    const T* const x = from + offset(chain, stride);
    T *const y = to + offset(chain, stride), *const input = memory_input + chain * width;
    const Vector<T> first = order() > 0 ? load<T>(x) : Vector<T>{}, u = load<T>(input);
    for (int64_t n = 0; n < order(); ++n) {
      const Vector<T> after = n == 0 && !adjoint ? u : Vector<T>{};
      store<T>(y + n * width, valid ? after : load<T>(x + n * width));
    }
    if (adjoint) store<T>(input, valid ? first : Vector<T>{});
  }

  // One step size per row.
  template <bool adjoint>
  void per_row(int64_t t, int64_t chain, const T* from, T* to, int64_t stride, T* memory_input, const Mask& valid) const {
    const int64_t block = chain / s_.memories, rows = blocks_.rows(block);
    const double* const sizes = s_.step_sizes + t * s_.batch + first_ + blocks_.start(block);
    Vector<T> dt;
    for (int j = 0; j < kLanes<T>; ++j) dt[j] = T(sizes[j < rows ? j : rows - 1]);
    const StepSize<T, true> step = per_row_step_size<T>(dt, T(s_.alpha));
    const T* const x = from + offset(chain, stride);
    T *const y = to + offset(chain, stride), *const input = memory_input + chain * kLanes<T>;
    if (s_.generators.triangular) return per_row_triangular_step<T, adjoint>(s_.generators, step, x, y, input, valid);
    const EliminationTable<T, true> table(workspace_, order());
    T* const z = workspace_ + EliminationTable<T, true>::size(order());
    // All memories of a block share the table.
    if (chain % s_.memories == 0) table.fill(s_.generators, step.implicit_dt);
    if constexpr (adjoint) {
      store<T>(input, general_adjoint<T, true>(s_.generators, table, step, x, y, valid, z));
    } else {
      general_step<T, true>(s_.generators, table, step, x, y, load<T>(input), valid, z);
    }
  }

  // y = S x + b u with the packed dense matrix S of a fixed step.
  template <bool adjoint>
  void dense(const T* from, T* to, int64_t stride, T* memory_input, const Mask* valid) const {
    constexpr int width = kLanes<T>;
    const int64_t sum_rows = blocks_.sum_rows(), panels = round_up(order(), kPanel<T>) / kPanel<T>;
    T *const zeros = workspace_, *const sums = workspace_ + 2 * kPanel<T>;
    const T* w = adjoint ? s_.step_transposed : s_.step;
    for (int64_t k = 0; k < kPanel<T>; ++k) zeros[k] = T(0);
    for (int64_t panel = 0; panel < panels; ++panel, w += order() * kPanel<T>) {
      for (int64_t m = 0; m < s_.memories; ++m) {
        T* const z = sums + (m * panels + panel) * sum_rows * kPanel<T>;
        for (int64_t b = 0; b < blocks_.count; ++b) {
          const Piece<T> piece{from + offset(b * s_.memories + m, stride), Layout::by_lanes, order()};
          multiply_block<T>(
              blocks_.rows(b), order() - panel * kPanel<T>, &piece, 1, w, zeros, 0, z + blocks_.sum_row(b) * kPanel<T>);
        }
      }
    }
    for (int64_t chain = 0; chain < chains(); ++chain) {
      const int64_t b = chain / s_.memories, m = chain % s_.memories;
      const T* const x = from + offset(chain, stride);
      T *const y = to + offset(chain, stride), *const input = memory_input + chain * width;
      const Vector<T> u = load<T>(input);
      Vector<T> drive{};
      for (int64_t n = 0; n < order(); n += width) {
        Vector<T> tile[width];
        const T* const z = sums + ((m * panels + n / kPanel<T>)*sum_rows + blocks_.sum_row(b)) * kPanel<T> + n % kPanel<T>;
        for (int j = 0; j < width; ++j) tile[j] = load<T>(z + (j < blocks_.rows(b) ? j : blocks_.rows(b) - 1) * kPanel<T>);
        transpose<T>(tile);
        for (int c = 0; c < width && n + c < order(); ++c) {
          const Vector<T> before = load<T>(x + (n + c) * width);
          if (adjoint) drive += s_.drive[n + c] * before;
          const Vector<T> after = adjoint ? tile[c] : tile[c] + s_.drive[n + c] * u;
          store<T>(y + (n + c) * width, valid[b] ? after : before);
        }
      }
      if (adjoint) store<T>(input, valid[b] ? drive : Vector<T>{});
    }
  }

  const Sequence<T>& s_;
  const Blocks& blocks_;
  int64_t first_;
  T* workspace_;
  double dt_ = 0;
};

}  // namespace seqmem::SEQMEM_ISA
