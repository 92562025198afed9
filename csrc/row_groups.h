// Partition of the batch rows into groups for threads, large workspaces, and flushing of denormals.
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

// Tensors of at least this size are placed on huge pages.
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

// Flushes denormals (below 1e-38 in float32) to zero on this thread during its lifetime. Products with denormals are many times
// slower, and vanishing gradients reach that range.
class FlushDenormals {
#if defined(__x86_64__)
 public:
  FlushDenormals() : previous_mode_(_mm_getcsr()) { _mm_setcsr(previous_mode_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(previous_mode_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  const unsigned previous_mode_;
#endif
};

// Equal groups of batch rows: a multiple of the thread count, each of at most `limit` rows so that its data stays in cache.
struct RowGroups {
  int64_t batch, count;

  RowGroups(int64_t rows, int64_t limit) : batch(rows) {
    const int64_t threads = at::get_num_threads();
    count = std::min(rows, threads * ((rows + threads * limit - 1) / (threads * limit)));
  }
  int64_t first_row(int64_t group) const { return group * batch / count; }
  int64_t rows(int64_t group) const { return first_row(group + 1) - first_row(group); }
  int64_t max_rows() const { return (batch + count - 1) / count; }
};

}  // namespace seqmem
