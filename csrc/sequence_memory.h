// A linear memory as the time loops see it: a forward update of blocks of rows, by lanes, and its transpose.
//
// Two kinds: a quasiseparable transition with its step sizes (quasiseparable.h), and a step that is the same at all times, as a
// dense matrix.
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
    if (s.step != nullptr) return blocks.lines() * dense_columns(s) + 2 * kPanel<T>;
    const int64_t order = s.generators.order;
    if (s.generators.triangular) return s.own_step_sizes ? 0 : TriangularTable<T>::size(order);
    return order * kLanes<T> + (s.own_step_sizes ? EliminationTable<T, true>::size(order) : EliminationTable<T, false>::size(order));
  }

  Memory(const Sequence<T>& sequence, const Blocks& blocks, int64_t first, T* workspace)
      : s_(sequence), blocks_(blocks), first_(first), workspace_(workspace) {}

  // What all rows share of step t.
  void prepare(int64_t t) {
    if (s_.step != nullptr || s_.own_step_sizes) return;
    dt_ = s_.step_sizes[t];
    if (s_.generators.triangular) {
      TriangularTable<T>(workspace_, order()).fill(s_.generators, dt_, s_.implicit);
    } else if (!starts()) {
      EliminationTable<T, false>(workspace_, order()).fill(s_.generators, T(dt_ * s_.implicit));
    }
  }

  // Memory (M, N, W) of blocks that are `stride` numbers apart, written (blocks, M, W): rows that are not valid keep their
  // memory. `from` and `to` may be the same.
  void update(int64_t t, const T* from, T* to, int64_t stride, const T* written, const Mask* valid) const {
    run<false>(t, from, to, stride, const_cast<T*>(written), valid);
  }

  // From the gradient of the new memory to that of the old one, and of what was written.
  void adjoint(int64_t t, const T* from, T* to, int64_t stride, T* written, const Mask* valid) const {
    run<true>(t, from, to, stride, written, valid);
  }

 private:
  static constexpr int kTogether = 4;

  static int64_t dense_columns(const Sequence<T>& s) { return s.memories * round_up(s.order, kPanel<T>); }
  int64_t order() const { return s_.order; }
  bool starts() const { return dt_ > 3e38; }
  int64_t chains() const { return blocks_.count * s_.memories; }
  // Where a chain's numbers start.
  int64_t place(int64_t chain, int64_t stride) const {
    return chain / s_.memories * stride + chain % s_.memories * s_.order * kLanes<T>;
  }

  template <bool adjoint>
  void run(int64_t t, const T* from, T* to, int64_t stride, T* written, const Mask* valid) const {
    if (s_.step != nullptr) return dense<adjoint>(from, to, stride, written, valid);
    for (int64_t chain = 0; chain < chains();) {
      if (s_.own_step_sizes) {
        own<adjoint>(t, chain, from, to, stride, written, valid[chain / s_.memories]);
        ++chain;
      } else if (!s_.generators.triangular) {
        general<adjoint>(chain, from, to, stride, written, valid[chain / s_.memories]);
        ++chain;
      } else if (chains() - chain >= kTogether) {
        triangular<adjoint, kTogether>(chain, from, to, stride, written, valid);
        chain += kTogether;
      } else {
        triangular<adjoint, 1>(chain, from, to, stride, written, valid);
        ++chain;
      }
    }
  }

  template <bool adjoint, int count>
  void triangular(int64_t chain, const T* from, T* to, int64_t stride, T* written, const Mask* valid) const {
    const T* x[count];
    T *y[count], *with[count];
    Mask mask[count];
    for (int c = 0; c < count; ++c) {
      x[c] = from + place(chain + c, stride);
      y[c] = to + place(chain + c, stride);
      with[c] = written + (chain + c) * kLanes<T>;
      mask[c] = valid[(chain + c) / s_.memories];
    }
    triangular_step<T, adjoint, count>(s_.generators, TriangularTable<T>(workspace_, order()), x, y, with, mask);
  }

  template <bool adjoint>
  void general(int64_t chain, const T* from, T* to, int64_t stride, T* written, const Mask& valid) const {
    const T* const x = from + place(chain, stride);
    T *const y = to + place(chain, stride), *const with = written + chain * kLanes<T>;
    if (starts()) return start<adjoint>(x, y, with, valid);
    const EliminationTable<T, false> table(workspace_, order());
    T* const z = workspace_ + EliminationTable<T, false>::size(order());
    const StepSize<T, false> step{T(dt_), T(dt_ * s_.implicit), T(dt_ - dt_ * s_.implicit), {}};
    if constexpr (adjoint) {
      store<T>(with, general_adjoint<T, false>(s_.generators, table, step, x, y, valid, z));
    } else {
      general_step<T, false>(s_.generators, table, step, x, y, load<T>(with), valid, z);
    }
  }

  template <bool adjoint>
  void start(const T* x, T* y, T* written, const Mask& valid) const {
    constexpr int width = kLanes<T>;
    const Vector<T> first = load<T>(x), u = load<T>(written);
    for (int64_t n = 0; n < order(); ++n) {
      const Vector<T> after = n == 0 && !adjoint ? u : Vector<T>{};
      store<T>(y + n * width, valid ? after : load<T>(x + n * width));
    }
    if (adjoint) store<T>(written, valid ? first : Vector<T>{});
  }

  // Rows with step sizes of their own.
  template <bool adjoint>
  void own(int64_t t, int64_t chain, const T* from, T* to, int64_t stride, T* written, const Mask& valid) const {
    const int64_t block = chain / s_.memories, rows = blocks_.rows(block);
    const double* const sizes = s_.step_sizes + t * s_.batch + first_ + blocks_.start(block);
    Vector<T> dt;
    for (int j = 0; j < kLanes<T>; ++j) dt[j] = T(sizes[j < rows ? j : rows - 1]);
    const StepSize<T, true> step = own_step_size<T>(dt, T(s_.implicit));
    const T* const x = from + place(chain, stride);
    T *const y = to + place(chain, stride), *const with = written + chain * kLanes<T>;
    if (s_.generators.triangular) return own_triangular_step<T, adjoint>(s_.generators, step, x, y, with, valid);
    const EliminationTable<T, true> table(workspace_, order());
    T* const z = workspace_ + EliminationTable<T, true>::size(order());
    // The memories of a block have their step sizes in common.
    if (chain % s_.memories == 0) table.fill(s_.generators, step.implicit);
    if constexpr (adjoint) {
      store<T>(with, general_adjoint<T, true>(s_.generators, table, step, x, y, valid, z));
    } else {
      general_step<T, true>(s_.generators, table, step, x, y, load<T>(with), valid, z);
    }
  }

  // y = S x + b u for a dense S of all times, which lies packed as the products read it.
  template <bool adjoint>
  void dense(const T* from, T* to, int64_t stride, T* written, const Mask* valid) const {
    constexpr int width = kLanes<T>;
    const int64_t lines = blocks_.lines(), panels = round_up(order(), kPanel<T>) / kPanel<T>;
    T *const zeros = workspace_, *const sums = workspace_ + 2 * kPanel<T>;
    const T* w = adjoint ? s_.step_transposed : s_.step;
    for (int64_t k = 0; k < kPanel<T>; ++k) zeros[k] = T(0);
    for (int64_t panel = 0; panel < panels; ++panel, w += order() * kPanel<T>) {
      for (int64_t m = 0; m < s_.memories; ++m) {
        T* const z = sums + (m * panels + panel) * lines * kPanel<T>;
        for (int64_t b = 0; b < blocks_.count; ++b) {
          const Piece<T> chain{from + place(b * s_.memories + m, stride), Order::by_lanes, order()};
          multiply_block<T>(
              blocks_.rows(b), order() - panel * kPanel<T>, &chain, 1, w, zeros, 0, z + blocks_.line(b) * kPanel<T>);
        }
      }
    }
    for (int64_t chain = 0; chain < chains(); ++chain) {
      const int64_t b = chain / s_.memories, m = chain % s_.memories;
      const T* const x = from + place(chain, stride);
      T *const y = to + place(chain, stride), *const with = written + chain * width;
      const Vector<T> u = load<T>(with);
      Vector<T> drive{};
      for (int64_t n = 0; n < order(); n += width) {
        Vector<T> tile[width];
        const T* const z = sums + ((m * panels + n / kPanel<T>)*lines + blocks_.line(b)) * kPanel<T> + n % kPanel<T>;
        for (int j = 0; j < width; ++j) tile[j] = load<T>(z + (j < blocks_.rows(b) ? j : blocks_.rows(b) - 1) * kPanel<T>);
        transpose<T>(tile);
        for (int c = 0; c < width && n + c < order(); ++c) {
          const Vector<T> before = load<T>(x + (n + c) * width);
          if (adjoint) drive += s_.drive[n + c] * before;
          const Vector<T> after = adjoint ? tile[c] : tile[c] + s_.drive[n + c] * u;
          store<T>(y + (n + c) * width, valid[b] ? after : before);
        }
      }
      if (adjoint) store<T>(with, valid[b] ? drive : Vector<T>{});
    }
  }

  const Sequence<T>& s_;
  const Blocks& blocks_;
  int64_t first_;
  T* workspace_;
  double dt_ = 0;
};

}  // namespace seqmem::SEQMEM_ISA
