// A linear memory as the time loops see it: a forward update of blocks of rows, by lanes, and its transpose. Another memory is
// another class with these members.
//
// The recurrence and its coefficients are those of legs.h; here a vector holds one coefficient of up to W rows of a block.
#pragma once

#include <cstdint>

#include "sequence.h"
#include "sequence_product.h"
#include "vector.h"

namespace seqmem::SEQMEM_ISA {

template <typename T>
class LegsMemory {
 public:
  using Mask = typename VectorOf<T>::index;

  static int64_t workspace(int64_t order) { return 5 * order; }

  LegsMemory(const Sequence<T>& sequence, const Blocks& blocks, int64_t first, T* workspace)
      : sequence_(sequence), blocks_(blocks), first_(first), scale_(workspace), table_(workspace + sequence.order) {
    if (workspace == nullptr) return;
    for (int64_t n = 0; n < sequence.order; ++n) scale_[n] = T(__builtin_sqrt(double(2 * n + 1)));
  }

  // What all rows share of step t.
  void prepare(int64_t t) {
    if (sequence_.own_step_sizes) return;
    const double dt = sequence_.step_sizes[t];
    const int64_t order = sequence_.order;
    T* const keep = table_;
    T* const gain = keep + order;
    T* const carry = gain + order;
    T* const feed = carry + order;
    if (dt == 0) {
      for (int64_t n = 0; n < 4 * order; ++n) table_[n] = T(0);
      gain[0] = T(1);
      return;
    }
    const T implicit = T(dt * sequence_.implicit), explicit_part = T(dt - dt * sequence_.implicit);
    for (int64_t n = 0; n < order; ++n) {
      const T d = T(1) / (T(1) + T(n + 1) * implicit);
      keep[n] = (T(1) - T(n + 1) * explicit_part) * d;
      gain[n] = T(dt) * scale_[n] * d;
      carry[n] = (T(1) - T(n) * implicit) * d;
      feed[n] = -scale_[n] * d;
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
  // The recurrences of several blocks run side by side: each of them is one long chain of dependent operations.
  static constexpr int kTogether = 4;

  template <bool adjoint>
  void run(int64_t t, const T* from, T* to, int64_t stride, T* written, const Mask* valid) const {
    const int64_t chains = blocks_.count * sequence_.memories;
    for (int64_t chain = 0; chain < chains;) {
      if (sequence_.own_step_sizes) {
        own<adjoint>(t, chain, from, to, stride, written, valid[chain / sequence_.memories]);
        ++chain;
      } else if (chains - chain >= kTogether) {
        shared<adjoint, kTogether>(chain, from, to, stride, written, valid);
        chain += kTogether;
      } else {
        shared<adjoint, 1>(chain, from, to, stride, written, valid);
        ++chain;
      }
    }
  }

  // Where a chain's numbers start.
  int64_t place(int64_t chain, int64_t stride) const {
    return chain / sequence_.memories * stride + chain % sequence_.memories * sequence_.order * kLanes<T>;
  }

  template <bool adjoint, int count>
  void shared(int64_t chain, const T* from, T* to, int64_t stride, T* written, const Mask* valid) const {
    constexpr int width = kLanes<T>;
    const int64_t order = sequence_.order;
    const T *const keep = table_, *const gain = keep + order, *const carry = gain + order, *const feed = carry + order;
    Vector<T> r[count];
    Mask mask[count];
    const T* x[count];
    T* y[count];
#pragma GCC unroll 4
    for (int c = 0; c < count; ++c) {
      mask[c] = valid[(chain + c) / sequence_.memories];
      x[c] = from + place(chain + c, stride);
      y[c] = to + place(chain + c, stride);
      r[c] = adjoint ? Vector<T>{} : load<T>(written + (chain + c) * width);
    }
    for (int64_t k = 0; k < order; ++k) {
      const int64_t n = adjoint ? order - 1 - k : k;
      const T keep_n = keep[n], gain_n = adjoint ? feed[n] : gain[n], carry_n = carry[n], feed_n = adjoint ? gain[n] : feed[n];
#pragma GCC unroll 4
      for (int c = 0; c < count; ++c) {
        const Vector<T> before = load<T>(x[c] + n * width);
        const Vector<T> after = keep_n * before + gain_n * r[c];
        r[c] = carry_n * r[c] + feed_n * before;
        store<T>(y[c] + n * width, mask[c] ? after : before);
      }
    }
    if (adjoint) {
      for (int c = 0; c < count; ++c) store<T>(written + (chain + c) * width, mask[c] ? r[c] : Vector<T>{});
    }
  }

  // Rows with step sizes of their own; where one is 0 the memory becomes u e_0.
  template <bool adjoint>
  void own(int64_t t, int64_t chain, const T* from, T* to, int64_t stride, T* written, const Mask& valid) const {
    constexpr int width = kLanes<T>;
    const int64_t order = sequence_.order, block = chain / sequence_.memories, rows = blocks_.rows(block);
    const double* const sizes = sequence_.step_sizes + t * sequence_.batch + first_ + blocks_.start(block);
    Vector<T> dt, implicit;
    for (int j = 0; j < width; ++j) {
      const double size = sizes[j < rows ? j : rows - 1];
      dt[j] = T(size);
      implicit[j] = T(size * sequence_.implicit);
    }
    const Vector<T> rest = dt - implicit;
    const Mask started = dt == T(0);
    const T* const x = from + place(chain, stride);
    T* const y = to + place(chain, stride);
    Vector<T> r = adjoint ? Vector<T>{} : load<T>(written + chain * width);
    const Vector<T> u = r;
    Vector<T> first{};
    for (int64_t k = 0; k < order; ++k) {
      const int64_t n = adjoint ? order - 1 - k : k;
      const Vector<T> d = T(1) / (T(1) + T(n + 1) * implicit);
      const Vector<T> keep = d * (T(1) - T(n + 1) * rest), gain = d * dt * scale_[n];
      const Vector<T> carry = d * (T(1) - T(n) * implicit), feed = -d * scale_[n];
      const Vector<T> before = load<T>(x + n * width);
      Vector<T> after = keep * before + (adjoint ? feed : gain) * r;
      r = carry * r + (adjoint ? gain : feed) * before;
      if (n == 0) first = before;
      after = started ? (n == 0 && !adjoint ? u : Vector<T>{}) : after;
      store<T>(y + n * width, valid ? after : before);
    }
    if (adjoint) store<T>(written + chain * width, valid ? (started ? first : r) : Vector<T>{});
  }

  const Sequence<T>& sequence_;
  const Blocks& blocks_;
  int64_t first_;
  T* scale_;
  T* table_;  // keep, gain, carry and feed of one step
};

}  // namespace seqmem::SEQMEM_ISA
