// What an operator says of tensors that do not fit together.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace seqmem {

using Maybe = std::optional<at::Tensor>;

inline void check_shape(const char* name, const char* what, const at::Tensor& given, const at::Tensor& inputs, at::IntArrayRef shape) {
  TORCH_CHECK_VALUE(given.sizes() == shape, name, ": ", what, " must have shape ", shape, ", got ", given.sizes());
  TORCH_CHECK_VALUE(
      given.scalar_type() == inputs.scalar_type(), name, ": ", what, " must be ", inputs.scalar_type(), " as the inputs, got ",
      given.scalar_type());
  TORCH_CHECK_VALUE(given.device() == inputs.device(), name, ": ", what, " must be on ", inputs.device(), ", got ", given.device());
}

inline void check_shape(const char* name, const char* what, const Maybe& given, const at::Tensor& inputs, at::IntArrayRef shape) {
  if (given) check_shape(name, what, *given, inputs, shape);
}

// So that what is counted of a few sizes stays within 64 bits: expanded tensors may have any.
inline void check_extent(const char* name, const at::Tensor& given) {
  for (const int64_t size : given.sizes()) {
    TORCH_CHECK_VALUE(size < int64_t(1) << 30, name, ": sizes must be below 2^30, got ", given.sizes());
  }
}

inline void check_double(const char* name, const char* what, const at::Tensor& given, at::IntArrayRef shape) {
  TORCH_CHECK_VALUE(
      given.sizes() == shape && given.scalar_type() == at::kDouble, name, ": ", what, " must be ", shape, " float64, got ",
      given.sizes(), " ", given.scalar_type());
}

inline void check_floating(const char* name, const char* what, const at::Tensor& given) {
  TORCH_CHECK_VALUE(
      given.scalar_type() == at::kFloat || given.scalar_type() == at::kDouble, name, ": ", what, " must be float32 or float64, got ",
      given.scalar_type());
}

// Steps of each row, made contiguous.
inline void check_lengths(const char* name, Maybe& lengths, int64_t batch) {
  if (!lengths) return;
  TORCH_CHECK_VALUE(
      lengths->sizes() == at::IntArrayRef({batch}) && lengths->scalar_type() == at::kLong, name,
      ": lengths must be (B,) int64 with B = ", batch, ", got ", lengths->sizes(), " ", lengths->scalar_type());
  lengths = lengths->contiguous();
}

// Numbers of a contiguous tensor. Never null, not even of an empty one: null stands for what is not given, and even no number may
// not be copied from there.
template <typename T>
T* writable(const at::Tensor& tensor) {
  static T none{};
  return tensor.numel() > 0 ? tensor.mutable_data_ptr<T>() : &none;
}

template <typename T>
const T* readable(const at::Tensor& tensor) {
  static const T none{};
  return tensor.numel() > 0 ? tensor.const_data_ptr<T>() : &none;
}

template <typename T>
const T* data(const Maybe& tensor) {
  return tensor ? readable<T>(*tensor) : nullptr;
}

}  // namespace seqmem
