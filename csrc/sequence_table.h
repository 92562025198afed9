// Table of the time loops of one instruction set; included last by each sequence_*.cpp. The bfloat16 loops are compiled in a
// separate file, because they take as long as all others.
#pragma once

#include "sequence_loop.h"

namespace seqmem::SEQMEM_ISA {

#if SEQMEM_VECTOR_BYTES == 64
SequenceKernels<float> bfloat16_kernels(Cell cell);
constexpr auto optional_bfloat16_kernels = bfloat16_kernels;
#else
constexpr SequenceKernels<float> (*optional_bfloat16_kernels)(Cell) = nullptr;
#endif

SequenceTable sequence_table() { return {kernels_for<float, false>, kernels_for<double, false>, optional_bfloat16_kernels}; }

}  // namespace seqmem::SEQMEM_ISA
