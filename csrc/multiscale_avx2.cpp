// The multiscale loops for x86-64 processors with AVX2 and FMA. Standard headers come before the pragma: code of theirs that is
// shared with other files must stay within what every processor can run.
#if defined(__x86_64__) && !defined(__clang__)
#include <cstdint>
#include <cstring>
#pragma GCC target("avx2,fma")
#define SEQMEM_ISA avx2
#define SEQMEM_VECTOR_BYTES 32
#include "multiscale_table.h"
#endif
