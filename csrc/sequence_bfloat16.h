// bfloat16 matrix products with float32 sums, in tiles of 16 rows, 32 columns and depth 32: by AMX, or by AVX-512 vectors on
// processors without AMX.
//
// Both operands have the layout of AMX tiles. Left: (groups of 32 k, 16 rows, 32 k), with any stride between rows and groups.
// Right: (groups of 32 k, 2 halves of the columns, 16 pairs of k, 16 columns, 2 of a pair).
#pragma once

#include <cstdint>
#include <cstring>
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

#if SEQMEM_VECTOR_BYTES == 64

typedef uint32_t BitVector __attribute__((vector_size(64)));
typedef uint16_t Bfloat16Vector __attribute__((vector_size(32)));

// The same for 16 numbers, as upper halves of 32 bits.
SEQMEM_INLINE BitVector rounded(const Vector<float>& x) {
  BitVector bits;
  std::memcpy(&bits, &x, sizeof bits);
  const BitVector up = bits + 0x7fff + ((bits >> 16) & 1);
  return (x == x ? up : bits | 0x400000) & 0xffff0000;
}

SEQMEM_INLINE void store_bfloat16(Bfloat16* to, const Vector<float>& x) {
  const Bfloat16Vector values = __builtin_convertvector(rounded(x) >> 16, Bfloat16Vector);
  std::memcpy(to, &values, sizeof values);
}

// Stores two k of 16 columns in the layout of the right operand.
SEQMEM_INLINE void store_pair(Bfloat16* to, const Vector<float>& even, const Vector<float>& odd) {
  const BitVector pair = (rounded(even) >> 16) | rounded(odd);
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
  // `row_stride` numbers apart, groups of 32 k are `group_stride` numbers apart.
  template <bool overwrite>
  void multiply(
      int64_t count, const Bfloat16* a, int64_t tile_stride, int64_t row_stride, int64_t group_stride, const Bfloat16* b,
      int64_t groups, float* z) const {
    // The compiler does not know that the AMX intrinsics read and write memory.
    __asm__ volatile("" ::: "memory");
    for (int64_t i = 0; i < count; i += 2) {
      float* const to = z + i * kTileRows * kTileColumns;
      const Bfloat16* const upper = a + i * tile_stride;
      if (!amx_) {
        if (overwrite) std::memset(to, 0, (i + 1 < count ? 2 : 1) * kTileRows * kTileColumns * sizeof(float));
        multiply_vectors(upper, row_stride, group_stride, b, groups, to);
        if (i + 1 < count) {
          multiply_vectors(upper + tile_stride, row_stride, group_stride, b, groups, to + kTileRows * kTileColumns);
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

  static void multiply_vectors(
      const Bfloat16* a, int64_t row_stride, int64_t group_stride, const Bfloat16* b, int64_t groups, float* z) {
    constexpr int kRows = 4;  // rows in registers at a time
    for (int row = 0; row < kTileRows; row += kRows) {
      Vector<float> sum[kRows][2];
      for (int r = 0; r < kRows; ++r) {
        for (int half = 0; half < 2; ++half) sum[r][half] = load<float>(z + (row + r) * kTileColumns + half * 16);
      }
      for (int64_t g = 0; g < groups; ++g) {
        for (int k = 0; k < kTileDepth; k += 2) {
          for (int half = 0; half < 2; ++half) {
            BitVector pair;
            std::memcpy(&pair, b + g * kGroup + half * (kGroup / 2) + k * 16, sizeof pair);
            const Vector<float> even = Vector<float>(pair << 16), odd = Vector<float>(pair & 0xffff0000);
            for (int r = 0; r < kRows; ++r) {
              const Bfloat16* const a_k = a + g * group_stride + (row + r) * row_stride + k;
              sum[r][half] += to_float(a_k[0]) * even + to_float(a_k[1]) * odd;
            }
          }
        }
      }
      for (int r = 0; r < kRows; ++r) {
        for (int half = 0; half < 2; ++half) store<float>(z + (row + r) * kTileColumns + half * 16, sum[r][half]);
      }
    }
  }

  static float to_float(Bfloat16 x) {
    const uint32_t bits = uint32_t(x) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }

  const bool amx_;
};

#endif

}  // namespace seqmem::SEQMEM_ISA
