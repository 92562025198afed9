// What a quasiseparable transition is made of, see quasiseparable.h.
#pragma once

#include <cstdint>

namespace seqmem {

// (6, N): p, q, d, g, h and B.
template <typename T>
struct Generators {
  int64_t order;
  const T *p, *q, *d, *g, *h, *b;
  const double* exact;  // the same rows in double
  bool triangular;  // g = 0 and B = scale p
  T scale;
};

}  // namespace seqmem
