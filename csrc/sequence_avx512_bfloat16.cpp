// Time loops with bfloat16 products for x86-64 processors with AVX512_BF16, and AMX if present. Shared headers
// precede the pragma, see shared.h.
#if defined(__x86_64__) && !defined(__clang__)
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels.h"
#include "sequence.h"
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx512bf16,avx2,fma,amx-tile,amx-bf16")
#define SEQMEM_ISA avx512
#define SEQMEM_VECTOR_BYTES 64
#include "sequence_loop.h"

namespace seqmem::avx512 {

SequenceKernels<float> bfloat16_kernels(Cell cell) { return kernels_for<float, true>(cell); }

}  // namespace seqmem::avx512
#endif
