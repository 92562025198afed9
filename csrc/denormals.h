// Flushing of denormals, numbers below 1.2e-38 in float32 and 2.2e-308 in float64.
//
// Products with denormals are many times slower, and vanishing gradients reach that range. On x86-64 every compiled operator
// takes denormals as zeros and returns zeros in their place, in each of its threads and with any instruction set. The mode of
// the calling thread is restored. Elsewhere, and in torch's own kernels, torch.set_flush_denormal decides.
#pragma once

#include "shared.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <cmath>
#include <cstdint>
#include <limits>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace seqmem {

// Flushes denormals on this thread during its lifetime.
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

// at::parallel_for whose threads flush denormals. A thread of the pool does not inherit the mode of the caller.
template <typename Function>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const Function& function) {
  at::parallel_for(begin, end, grain, [&](int64_t first, int64_t last) {
    [[maybe_unused]] const FlushDenormals flush;
    function(first, last);
  });
}

template <typename T>
void flush_numbers(T* numbers, int64_t count) {
  constexpr T smallest = std::numeric_limits<T>::min();
  for (int64_t k = 0; k < count; ++k) numbers[k] = std::abs(numbers[k]) < smallest ? T(0) : numbers[k];
}

// Flushes the results of torch's kernels in place, float32 or float64; their threads do not flush.
inline at::Tensor flushed(const at::Tensor& tensor) {
#if defined(__x86_64__)
  const at::Tensor result = tensor.contiguous();
  if (result.scalar_type() == at::kFloat) {
    flush_numbers(result.mutable_data_ptr<float>(), result.numel());
  } else {
    flush_numbers(result.mutable_data_ptr<double>(), result.numel());
  }
  return result;
#else
  return tensor;
#endif
}

}  // namespace seqmem
