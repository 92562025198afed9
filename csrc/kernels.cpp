// The choice of an instruction set, made once, when a kernel is first asked for.
#include "kernels.h"

#include <cstdlib>
#include <cstring>

namespace seqmem {

namespace baseline {
Kernels table(const char*);
}
#if defined(__x86_64__) && !defined(__clang__)
namespace avx2 {
Kernels table(const char*);
}
namespace avx512 {
Kernels table(const char*);
}
#endif

static Kernels choose() {
#if defined(__x86_64__) && !defined(__clang__)
  // SEQMEM_INSTRUCTION_SET asks for less than the processor has, so that every table can be tested on one machine.
  const char* wish = std::getenv("SEQMEM_INSTRUCTION_SET");
  const bool wide = wish == nullptr || std::strcmp(wish, "avx512") == 0;
  const bool middle = wide || std::strcmp(wish, "avx2") == 0;
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
  if (wide && has_avx512) return avx512::table("avx512");
  if (middle && has_avx2) return avx2::table("avx2");
#endif
  return baseline::table("baseline");
}

const Kernels& kernels() {
  static const Kernels chosen = choose();
  return chosen;
}

}  // namespace seqmem
