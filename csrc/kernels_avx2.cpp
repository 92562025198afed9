// Row kernels for x86-64 processors with AVX2 and FMA. Standard headers precede the pragma: other files share their inline
// code, which must run on every processor.
#if defined(__x86_64__) && !defined(__clang__)
#include <cstdint>
#include <cstring>
#pragma GCC target("avx2,fma")
#define SEQMEM_ISA avx2
#define SEQMEM_VECTOR_BYTES 32
#include "kernels_table.h"
#endif
