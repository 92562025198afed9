// The time loops in bfloat16, for x86-64 processors with AVX-512, and AMX where those have it. Standard headers come
// before the pragma: code of theirs that is shared with other files must stay within what every processor can run.
#if defined(__x86_64__) && !defined(__clang__)
#include <immintrin.h>

#include <cstdint>
#include <cstring>
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,amx-tile,amx-bf16")
#define SEQMEM_ISA avx512
#define SEQMEM_VECTOR_BYTES 64
#include "sequence_loop.h"

namespace seqmem::avx512 {

SequenceKernels<float> bfloat16_kernels(Cell cell) { return kernels_for<float, true>(cell); }

}  // namespace seqmem::avx512
#endif
