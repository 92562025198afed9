// Tensors that are contiguous, or (B, T, size) whose rows of numbers are, with any distance between the rows.
#pragma once

#include "shared.h"

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "checks.h"

namespace seqmem {

// The tensor itself if its rows are contiguous, such as a part of a projection, else a copy.
inline at::Tensor with_contiguous_rows(const at::Tensor& tensor) {
  const bool plain = !tensor._is_zerotensor() && !tensor.is_neg();
  return plain && (tensor.size(-1) <= 1 || tensor.stride(-1) == 1) ? tensor : tensor.contiguous();
}
inline OptionalTensor with_contiguous_rows(const OptionalTensor& tensor) {
  return tensor ? OptionalTensor(with_contiguous_rows(*tensor)) : OptionalTensor();
}

inline OptionalTensor contiguous(const OptionalTensor& tensor) {
  return tensor ? OptionalTensor(tensor->contiguous()) : OptionalTensor();
}

// Whether non-temporal stores suit a result: it exceeds the caches, from which smaller ones may be read again, and its rows are
// whole cache lines.
inline bool can_stream(const at::Tensor& result) {
  constexpr size_t smallest = size_t(1) << 23;
  return result.nbytes() >= smallest && reinterpret_cast<uintptr_t>(result.const_data_ptr()) % 64 == 0 &&
         result.size(-1) * result.element_size() % 64 == 0;
}

}  // namespace seqmem
