// Vectorised log(1 + q) for q from 0 to 1, accurate to a few units in the last place.
#pragma once

#include "sequence_math.h"
#include "vector.h"

namespace seqmem::SEQMEM_ISA {

template <typename T>
SEQMEM_INLINE Vector<T> minus_absolute(const Vector<T>& x) {
  const Vector<T> minus_zero = -Vector<T>{};
  typename VectorOf<T>::index bits, sign;
  std::memcpy(&bits, &x, sizeof bits);
  std::memcpy(&sign, &minus_zero, sizeof sign);
  bits |= sign;
  Vector<T> value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// 2 artanh(s) of s = q / (2 + q), at most 1/3, by its series.
template <typename T>
SEQMEM_INLINE Vector<T> log1p_of_unit(const Vector<T>& q) {
  constexpr int terms = sizeof(T) == 4 ? 8 : 17;
  const Vector<T> s = q * reciprocal<T>(q + T(2)), square = s * s;
  Vector<T> sum = broadcast<T>(T(1) / T(2 * terms - 1));
#pragma GCC unroll 16
  for (int term = terms - 2; term >= 0; --term) sum = sum * square + T(1) / T(2 * term + 1);
  return T(2) * s * sum;
}

}  // namespace seqmem::SEQMEM_ISA
