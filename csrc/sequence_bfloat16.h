// bfloat16 matrix products with float32 sums, in tiles of 16 rows, 32 columns and depth 32: by AMX, or by the dot products of
// AVX512_BF16. Processors without either round the operands to bfloat16 and multiply in float32.
//
// Both operands of a tile have the layout of AMX tiles. Left: (groups of 32 k, 16 rows, 32 k), with any stride between rows and
// groups. Right: (groups of 32 k, 2 halves of the columns, 16 pairs of k, 16 columns, 2 of a pair).
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#if SEQMEM_VECTOR_BYTES == 64
#include <immintrin.h>
#endif

#include "sequence.h"
#include "vector.h"

namespace seqmem::SEQMEM_ISA {

using Bfloat16 = uint16_t;  // upper half of a float32

constexpr int kTileRows = 16, kTileDepth = 32, kTileColumns = 32;
constexpr int64_t kGroup = kTileDepth * kTileColumns;  // numbers of the right operand per group of 32 k

// Number of groups of 32 k.
constexpr int64_t tile_groups(int64_t depth) { return (depth + kTileDepth - 1) / kTileDepth; }

// Rounds to nearest, ties to even.
SEQMEM_INLINE Bfloat16 to_bfloat16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return Bfloat16((x == x ? bits + 0x7fff + ((bits >> 16) & 1) : bits | 0x400000) >> 16);
}

typedef uint32_t BitVector __attribute__((vector_size(SEQMEM_VECTOR_BYTES)));

// The same for W numbers, as float32.
SEQMEM_INLINE Vector<float> rounded(const Vector<float>& x) {
  BitVector bits;
  std::memcpy(&bits, &x, sizeof bits);
  const BitVector up = bits + 0x7fff + ((bits >> 16) & 1);
  bits = (x == x ? up : bits | 0x400000) & 0xffff0000;
  Vector<float> result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

// Operand of a product: rounded to bfloat16 if `rounds`, see Sequence.
template <typename T>
SEQMEM_INLINE Vector<T> as_operand(const Vector<T>& x, bool rounds) {
  if constexpr (std::is_same_v<T, float>) {
    if (rounds) return rounded(x);
  }
  return x;
}

// The same for `count` numbers in place.
template <typename T>
static void round_operands(T* numbers, int64_t count, bool rounds) {
  if (!rounds) return;
  for (int64_t k = 0; k < count; k += kLanes<T>) {
    const int64_t remaining = count - k < kLanes<T> ? count - k : kLanes<T>;
    Vector<T> x{};
    std::memcpy(&x, numbers + k, remaining * sizeof(T));
    x = as_operand<T>(x, true);
    std::memcpy(numbers + k, &x, remaining * sizeof(T));
  }
}

#if SEQMEM_VECTOR_BYTES == 64

typedef uint16_t Bfloat16Vector __attribute__((vector_size(32)));

SEQMEM_INLINE Bfloat16Vector to_bfloat16(const Vector<float>& x) {
  __m512 value;
  std::memcpy(&value, &x, sizeof value);
  const __m256bh nearest = _mm512_cvtneps_pbh(value);
  Bfloat16Vector result;
  std::memcpy(&result, &nearest, sizeof result);
  return result;
}

SEQMEM_INLINE void store_bfloat16(Bfloat16* to, const Vector<float>& x) {
  const Bfloat16Vector values = to_bfloat16(x);
  std::memcpy(to, &values, sizeof values);
}

// Stores two k of 16 columns in the layout of the right operand.
SEQMEM_INLINE void store_pair(Bfloat16* to, const Vector<float>& even, const Vector<float>& odd) {
  const BitVector low = __builtin_convertvector(to_bfloat16(even), BitVector);
  const BitVector high = __builtin_convertvector(to_bfloat16(odd), BitVector);
  const BitVector pair = low | (high << 16);
  std::memcpy(to, &pair, sizeof pair);
}

struct alignas(64) TileConfiguration {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Matrix unit of a thread: configures the AMX tiles during its lifetime if `amx`.
class MatrixUnit {
 public:
  explicit MatrixUnit(bool amx) : amx_(amx) {
    if (!amx_) return;
    static const TileConfiguration configuration;
    _tile_loadconfig(&configuration);
  }
  ~MatrixUnit() {
    if (amx_) _tile_release();
  }
  MatrixUnit(const MatrixUnit&) = delete;
  MatrixUnit& operator=(const MatrixUnit&) = delete;

  // z (count * 16, 32) += a b, or z = a b if `overwrite`. Tile i of 16 rows starts at a + i * tile_stride; consecutive rows are
  // `row_stride` numbers apart, groups of 32 k are `group_stride` numbers apart. Only the first `rows` rows of a tile matter.
  template <bool overwrite>
  void multiply(
      int64_t count, int rows, const Bfloat16* a, int64_t tile_stride, int64_t row_stride, int64_t group_stride,
      const Bfloat16* b, int64_t groups, float* z) const {
    // The compiler does not know that the AMX intrinsics read and write memory.
    __asm__ volatile("" ::: "memory");
    for (int64_t i = 0; i < count; i += 2) {
      float* const to = z + i * kTileRows * kTileColumns;
      const Bfloat16* const upper = a + i * tile_stride;
      if (!amx_) {
        multiply_vectors<overwrite>(rows, upper, row_stride, group_stride, b, groups, to);
        if (i + 1 < count) {
          multiply_vectors<overwrite>(
              rows, upper + tile_stride, row_stride, group_stride, b, groups, to + kTileRows * kTileColumns);
        }
      } else if (i + 1 < count) {
        multiply_tiles<overwrite>(upper, upper + tile_stride, row_stride, group_stride, b, groups, to);
      } else {
        multiply_tiles<overwrite>(upper, row_stride, group_stride, b, groups, to);
      }
    }
    __asm__ volatile("" ::: "memory");
  }

 private:
  static constexpr int kRowBytes = kTileColumns * sizeof(float);

  template <bool overwrite>
  static void multiply_tiles(
      const Bfloat16* upper, const Bfloat16* lower, int64_t row_stride, int64_t group_stride, const Bfloat16* b, int64_t groups,
      float* z) {
    float* const below = z + kTileRows * kTileColumns;
    if constexpr (overwrite) {
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
    } else {
      _tile_loadd(0, z, kRowBytes);
      _tile_loadd(1, z + 16, kRowBytes);
      _tile_loadd(2, below, kRowBytes);
      _tile_loadd(3, below + 16, kRowBytes);
    }
    for (int64_t g = 0; g < groups; ++g, upper += group_stride, lower += group_stride, b += kGroup) {
      _tile_loadd(4, upper, row_stride * 2);
      _tile_loadd(6, b, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, b + kGroup / 2, 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, lower, row_stride * 2);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, z, kRowBytes);
    _tile_stored(1, z + 16, kRowBytes);
    _tile_stored(2, below, kRowBytes);
    _tile_stored(3, below + 16, kRowBytes);
  }

  template <bool overwrite>
  static void multiply_tiles(
      const Bfloat16* a, int64_t row_stride, int64_t group_stride, const Bfloat16* b, int64_t groups, float* z) {
    if constexpr (overwrite) {
      _tile_zero(0);
      _tile_zero(1);
    } else {
      _tile_loadd(0, z, kRowBytes);
      _tile_loadd(1, z + 16, kRowBytes);
    }
    for (int64_t g = 0; g < groups; ++g, a += group_stride, b += kGroup) {
      _tile_loadd(4, a, row_stride * 2);
      _tile_loadd(6, b, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, b + kGroup / 2, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    _tile_stored(0, z, kRowBytes);
    _tile_stored(1, z + 16, kRowBytes);
  }

  // Rows in registers at a time: 2 of their sums each, 2 weights.
  static constexpr int kRegisters = 14;

  template <bool overwrite>
  static void multiply_vectors(
      int rows, const Bfloat16* a, int64_t row_stride, int64_t group_stride, const Bfloat16* b, int64_t groups, float* z) {
    if (rows <= kRegisters) return multiply_rows<overwrite, kRegisters>(rows, a, row_stride, group_stride, b, groups, z);
    const int upper = rows / 2;
    multiply_rows<overwrite, kRegisters>(upper, a, row_stride, group_stride, b, groups, z);
    multiply_rows<overwrite, kRegisters>(
        rows - upper, a + upper * row_stride, row_stride, group_stride, b, groups, z + upper * kTileColumns);
  }

  template <bool overwrite, int count>
  static void multiply_rows(
      int rows, const Bfloat16* a, int64_t row_stride, int64_t group_stride, const Bfloat16* b, int64_t groups, float* z) {
    if constexpr (count > 1) {
      if (rows < count) return multiply_rows<overwrite, count - 1>(rows, a, row_stride, group_stride, b, groups, z);
    }
    __m512 sum[count][2];
#pragma GCC unroll 16
    for (int r = 0; r < count; ++r) {
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        sum[r][half] = overwrite ? _mm512_setzero_ps() : _mm512_loadu_ps(z + r * kTileColumns + half * 16);
      }
    }
    for (int64_t g = 0; g < groups; ++g, a += group_stride, b += kGroup) {
      for (int k = 0; k < kTileDepth; k += 2) {
        const __m512bh left = (__m512bh)_mm512_loadu_si512(b + k * 16);
        const __m512bh right = (__m512bh)_mm512_loadu_si512(b + kGroup / 2 + k * 16);
#pragma GCC unroll 16
        for (int r = 0; r < count; ++r) {
          int32_t pair;
          std::memcpy(&pair, a + r * row_stride + k, sizeof pair);
          const __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
          sum[r][0] = _mm512_dpbf16_ps(sum[r][0], left, both);
          sum[r][1] = _mm512_dpbf16_ps(sum[r][1], right, both);
        }
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < count; ++r) {
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) _mm512_storeu_ps(z + r * kTileColumns + half * 16, sum[r][half]);
    }
  }

  const bool amx_;
};

#endif

}  // namespace seqmem::SEQMEM_ISA
