// Kernel table of one instruction set; included last by each kernels_*.cpp.
#pragma once

#include "kernels.h"
#include "legs.h"
#include "legt.h"
#include "quasiseparable_rows.h"

namespace seqmem::SEQMEM_ISA {

template <typename T>
static RowKernels<T> row_kernels() {
  return {kLanes<T>, legs_step<T>, legt_step<T>, quasiseparable_rows<T>, legs_projection<T>};
}

Kernels kernel_table(const char* instruction_set) {
  static_assert(kLanes<float> <= kMaxLanes);
  return {instruction_set, row_kernels<float>(), row_kernels<double>(), legs_exponential, hold_projection,
          hold_projection_adjoint};
}

}  // namespace seqmem::SEQMEM_ISA
