// Selection of the instruction set, once per process, at the first call.
#include "kernels.h"

#include <cstdlib>
#include <cstring>

namespace seqmem {

namespace baseline {
Kernels kernel_table(const char*);
}
#if defined(__x86_64__) && !defined(__clang__)
namespace avx2 {
Kernels kernel_table(const char*);
}
namespace avx512 {
Kernels kernel_table(const char*);
}
#endif

static Kernels select_kernels() {
#if defined(__x86_64__) && !defined(__clang__)
  // SEQMEM_INSTRUCTION_SET lowers the instruction set, so that one machine can test every table.
  const char* limit = std::getenv("SEQMEM_INSTRUCTION_SET");
  // "avx512_bf16" differs in the products of sequence_run.cpp.
  const bool allow_avx512 = limit == nullptr || std::strncmp(limit, "avx512", 6) == 0;
  const bool allow_avx2 = allow_avx512 || std::strcmp(limit, "avx2") == 0;
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
  if (allow_avx512 && has_avx512) return avx512::kernel_table("avx512");
  if (allow_avx2 && has_avx2) return avx2::kernel_table("avx2");
#endif
  return baseline::kernel_table("baseline");
}

const Kernels& kernels() {
  static const Kernels selected = select_kernels();
  return selected;
}

}  // namespace seqmem
