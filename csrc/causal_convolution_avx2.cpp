// Causal convolution for x86-64 processors with AVX2 and FMA. Shared headers precede the pragma, see shared.h.
#if defined(__x86_64__) && !defined(__clang__)
#include <cstdint>
#include <cstring>

#include "causal_convolution.h"
#pragma GCC target("avx2,fma")
#define SEQMEM_ISA avx2
#define SEQMEM_VECTOR_BYTES 32
#include "causal_convolution_table.h"
#endif
