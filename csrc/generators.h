// Generators of a quasiseparable transition, see quasiseparable.h.
#pragma once

#include "shared.h"

#include <cstdint>

namespace seqmem {

// The rows p, q, d, g, h and B of a (6, N) tensor.
template <typename T>
struct Generators {
  int64_t order;
  const T *p, *q, *d, *g, *h, *b;
  const double* f64;  // the same (6, N) rows in float64
  bool triangular;    // g = 0 and B = scale p
  T scale;
};

}  // namespace seqmem
