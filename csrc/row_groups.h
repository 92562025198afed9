// Partition of the batch rows into groups for threads, and large workspaces.
#pragma once

#include "shared.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstdint>

#ifdef __linux__
#include <sys/mman.h>
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
