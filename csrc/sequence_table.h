// The table of this instruction set; the last lines of the sequence_*.cpp. The loops in bfloat16 have a file of their own, as they
// take as long to compile as the others.
#pragma once

#include "sequence_loop.h"

namespace seqmem::SEQMEM_ISA {

#if SEQMEM_VECTOR_BYTES == 64
SequenceKernels<float> bfloat16_kernels(Cell cell);
constexpr auto half_kernels = bfloat16_kernels;
#else
constexpr SequenceKernels<float> (*half_kernels)(Cell) = nullptr;
#endif

SequenceTable sequence_table() { return {kernels_for<float, false>, kernels_for<double, false>, half_kernels}; }

}  // namespace seqmem::SEQMEM_ISA
