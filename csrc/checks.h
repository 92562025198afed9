// Argument checks of the operators, and typed access to the data of tensors.
#pragma once

#include "shared.h"

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

namespace seqmem {

using OptionalTensor = std::optional<at::Tensor>;

// The name that Python uses, such as float32.
inline std::string dtype_name(at::ScalarType type) { return std::string(c10::getDtypeNames(type).first); }

// Requires the shape, and the type and device of `like`.
inline void check_tensor(
    const char* name, const char* argument, const at::Tensor& tensor, const at::Tensor& like, at::IntArrayRef shape) {
  TORCH_CHECK_VALUE(tensor.sizes() == shape, name, ": ", argument, ": got shape ", tensor.sizes(), ", expected ", shape);
  TORCH_CHECK_VALUE(
      tensor.scalar_type() == like.scalar_type(), name, ": ", argument, ": got ", dtype_name(tensor.scalar_type()),
      ", expected ", dtype_name(like.scalar_type()));
  TORCH_CHECK_VALUE(
      tensor.device() == like.device(), name, ": ", argument, ": got device ", tensor.device(), ", expected ", like.device());
}

inline void check_tensor(
    const char* name, const char* argument, const OptionalTensor& tensor, const at::Tensor& like, at::IntArrayRef shape) {
  if (tensor) check_tensor(name, argument, *tensor, like, shape);
}

// Bounds each size, so that products of a few sizes fit into 64 bits: expanded tensors may have any size.
inline void check_sizes(const char* name, const at::Tensor& tensor) {
  for (const int64_t size : tensor.sizes()) {
    TORCH_CHECK_VALUE(size < int64_t(1) << 30, name, ": got sizes ", tensor.sizes(), ", expected each below 2^30");
  }
}

inline void check_float64(const char* name, const char* argument, const at::Tensor& tensor, at::IntArrayRef shape) {
  TORCH_CHECK_VALUE(
      tensor.sizes() == shape && tensor.scalar_type() == at::kDouble, name, ": ", argument, ": got ", tensor.sizes(), " ",
      dtype_name(tensor.scalar_type()), ", expected ", shape, " float64");
}

inline void check_floating(const char* name, const char* argument, const at::Tensor& tensor) {
  TORCH_CHECK_VALUE(
      tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kDouble, name, ": ", argument, ": got ",
      dtype_name(tensor.scalar_type()), ", expected float32 or float64");
}

// Valid steps of each row, from 0 to `steps`; made contiguous.
inline void check_lengths(const char* name, OptionalTensor& lengths, int64_t batch, int64_t steps) {
  if (!lengths) return;
  TORCH_CHECK_VALUE(
      lengths->sizes() == at::IntArrayRef({batch}) && lengths->scalar_type() == at::kLong, name, ": lengths: got ",
      lengths->sizes(), " ", dtype_name(lengths->scalar_type()), ", expected (B,) int64 with B = ", batch);
  lengths = lengths->contiguous();
  const int64_t* const values = lengths->const_data_ptr<int64_t>();
  for (int64_t row = 0; row < batch; ++row) {
    TORCH_CHECK_VALUE(
        values[row] >= 0 && values[row] <= steps, name, ": lengths: got ", values[row], " in row ", row, ", expected 0 to T = ",
        steps);
  }
}

// Data of a contiguous tensor. Never null, even for an empty tensor: null means that an optional tensor is absent, and copying
// zero bytes from null is undefined.
template <typename T>
T* mutable_data(const at::Tensor& tensor) {
  static T placeholder{};
  return tensor.numel() > 0 ? tensor.mutable_data_ptr<T>() : &placeholder;
}

template <typename T>
const T* const_data(const at::Tensor& tensor) {
  static const T placeholder{};
  return tensor.numel() > 0 ? tensor.const_data_ptr<T>() : &placeholder;
}

template <typename T>
const T* optional_data(const OptionalTensor& tensor) {
  return tensor ? const_data<T>(*tensor) : nullptr;
}

}  // namespace seqmem
