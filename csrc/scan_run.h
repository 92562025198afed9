// What the operators of scan.h share: checks, results and threads.
#pragma once

#include "shared.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "checks.h"
#include "denormals.h"
#include "row_groups.h"
#include "scan.h"
#include "sequence.h"
#include "step_rows.h"

namespace seqmem {

template <typename T>
const ScanKernels<T>& scan_kernels_of() {
  if constexpr (std::is_same_v<T, float>) {
    return scan_kernels().f32;
  } else {
    return scan_kernels().f64;
  }
}

// Sizes of outputs (B, T, parts width), and whether they are stored past the caches, where all of them have their layout.
inline ScanSizes scan_sizes(const at::Tensor& outputs, const OptionalTensor& lengths, int64_t parts = 1) {
  const int64_t batch = outputs.size(0), steps = outputs.size(1), item = int64_t(outputs.element_size());
  const int64_t width = batch * steps > 0 ? outputs.numel() / (batch * steps * parts) : 0;
  constexpr int64_t streamed_bytes = int64_t(1) << 24, cache_line = 64;
  const bool is_aligned = reinterpret_cast<uintptr_t>(outputs.const_data_ptr()) % cache_line == 0;
  const bool streams = int64_t(outputs.nbytes()) >= streamed_bytes && width * item % cache_line == 0 && is_aligned;
  return {batch, steps, width, optional_data<int64_t>(lengths), streams};
}

// Runs a loop over all rows on all threads. Few rows are split into ranges from whole cache lines on, none of them so short that
// its numbers would be computed in a different way.
template <typename T, typename Arguments>
void run_scan(void (*loop)(const Arguments&, const ScanRange&, T*), const Arguments& arguments) {
  constexpr int64_t smallest = 256 / int64_t(sizeof(T));
  const ScanSizes& sizes = arguments.sizes;
  if (sizes.batch == 0 || sizes.width == 0) return;
  const int64_t threads = at::get_num_threads();
  const int64_t wanted = sizes.batch >= 4 * threads || threads == 1 ? 1 : (4 * threads + sizes.batch - 1) / sizes.batch;
  const int64_t size = round_up((sizes.width + wanted - 1) / wanted, smallest);
  const int64_t ranges = std::max<int64_t>(1, sizes.width / size);
  parallel_for(0, sizes.batch * ranges, 1, [&](int64_t first, int64_t last) {
    constexpr int64_t line = 64;
    std::vector<T> storage(scan_workspace(sizes.width) + line / sizeof(T));
    T* const workspace = storage.data() + (line - reinterpret_cast<uintptr_t>(storage.data()) % line) % line / sizeof(T);
    for (int64_t task = first; task < last; ++task) {
      const int64_t range = task % ranges, end = range + 1 == ranges ? sizes.width : (range + 1) * size;
      loop(arguments, {task / ranges, range * size, end}, workspace);
    }
  });
}

// Sums over the rows in their order, in the type of `options`.
template <typename T>
at::Tensor sum_of_rows(const at::Tensor& rows, at::IntArrayRef shape, const at::TensorOptions& options) {
  const at::Tensor sums = at::empty(shape, options);
  const int64_t count = sums.numel(), batch = rows.size(0);
  const double* const from = const_data<double>(rows);
  T* const to = mutable_data<T>(sums);
  parallel_for(0, count, 1 << 14, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      double sum = 0;
      for (int64_t row = 0; row < batch; ++row) sum += from[row * count + k];
      to[k] = T(sum);
    }
  });
  return sums;
}

// The state that an empty sequence keeps, or its gradient.
inline at::Tensor kept_state(const OptionalTensor& state, at::IntArrayRef shape, const at::TensorOptions& options) {
  return flushed(state ? state->clone(at::MemoryFormat::Contiguous) : at::zeros(shape, options));
}

}  // namespace seqmem
