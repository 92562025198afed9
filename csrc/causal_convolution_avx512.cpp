// Causal convolution for x86-64 processors with AVX-512. Shared headers precede the pragma, see shared.h.
#if defined(__x86_64__) && !defined(__clang__)
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "causal_convolution.h"
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")
#define SEQMEM_ISA avx512
#define SEQMEM_VECTOR_BYTES 64
#include "causal_convolution_table.h"
#endif
