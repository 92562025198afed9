// How an operator goes over the rows of a batch: which thread takes which, where they are kept, and in what arithmetic.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstdint>

#ifdef __linux__
#include <sys/mman.h>
#endif

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace seqmem {

// From here on huge pages are worth asking for.
constexpr size_t kLargeBytes = size_t(1) << 24;

inline at::Tensor empty_large(at::IntArrayRef sizes, const at::TensorOptions& options) {
  at::Tensor tensor = at::empty(sizes, options);
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (tensor.nbytes() >= kLargeBytes) {
    constexpr uintptr_t page = 4096;
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(tensor.data_ptr()) + page - 1) / page * page;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(tensor.data_ptr()) + tensor.nbytes()) / page * page;
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
  }
#endif
  return tensor;
}

// While it lives, numbers below the least normal one (1e-38 in float32) count as zero on this thread: gradients that vanish on
// their way back would otherwise make every product with them many times slower.
class FlushDenormals {
#if defined(__x86_64__)
 public:
  FlushDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(before_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  const unsigned before_;
#endif
};

// The batch in groups of rows, as many for each thread as keep a group's numbers in cache.
struct Groups {
  int64_t batch, count;

  Groups(int64_t rows, int64_t most) : batch(rows) {
    const int64_t threads = at::get_num_threads();
    count = std::min(rows, threads * ((rows + threads * most - 1) / (threads * most)));
  }
  int64_t first(int64_t group) const { return group * batch / count; }
  int64_t rows(int64_t group) const { return first(group + 1) - first(group); }
  int64_t most() const { return (batch + count - 1) / count; }
};

}  // namespace seqmem
