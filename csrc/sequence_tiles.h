// Products of bfloat16 numbers with float32 sums, 16 rows by 32 columns by 32 numbers at a time: the matrix tiles of AMX, or
// where a processor has none the same sums in vectors.
//
// Numbers lie as the tiles read them. Left: (groups of 32 k, 16 rows, 32 k), or any other stride from row to row and group to
// group. Right: (groups of 32 k, 2 halves of the columns, 16 pairs of k, 16 columns, 2 of a pair).
#pragma once

#include <cstdint>
#include <cstring>
#if SEQMEM_VECTOR_BYTES == 64
#include <immintrin.h>
#endif

#include "sequence.h"
#include "vector.h"

namespace seqmem::SEQMEM_ISA {

using Half = uint16_t;  // the upper half of a float32

constexpr int kTileLines = 16, kTileDepth = 32, kTileColumns = 32;
constexpr int64_t kGroup = kTileDepth * kTileColumns;  // numbers on the right for 32 k

// Groups of k that the tiles read.
constexpr int64_t tile_groups(int64_t depth) { return (depth + kTileDepth - 1) / kTileDepth; }

// Rounded to the nearest, ties to even.
SEQMEM_INLINE Half to_half(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return Half((x == x ? bits + 0x7fff + ((bits >> 16) & 1) : bits | 0x400000) >> 16);
}

#if SEQMEM_VECTOR_BYTES == 64

typedef uint32_t Bits __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));

// The same in the upper halves of 16 numbers.
SEQMEM_INLINE Bits rounded(const Vector<float>& x) {
  Bits bits;
  std::memcpy(&bits, &x, sizeof bits);
  const Bits up = bits + 0x7fff + ((bits >> 16) & 1);
  return (x == x ? up : bits | 0x400000) & 0xffff0000;
}

SEQMEM_INLINE void store_half(Half* to, const Vector<float>& x) {
  const Halves halves = __builtin_convertvector(rounded(x) >> 16, Halves);
  std::memcpy(to, &halves, sizeof halves);
}

// Two k of 16 columns as the right side holds them.
SEQMEM_INLINE void store_pair(Half* to, const Vector<float>& even, const Vector<float>& odd) {
  const Bits pair = (rounded(even) >> 16) | rounded(odd);
  std::memcpy(to, &pair, sizeof pair);
}

struct alignas(64) TileConfiguration {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Holds a thread's tiles ready where `tiles` says that it has them.
class Tiles {
 public:
  explicit Tiles(bool tiles) : tiles_(tiles) {
    if (!tiles_) return;
    static const TileConfiguration configuration;
    _tile_loadconfig(&configuration);
  }
  ~Tiles() {
    if (tiles_) _tile_release();
  }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

  // z (count * 16, 32) += a b, or where `fresh` z = a b. Tile i of 16 rows starts at a + i * next; its rows are `stride` numbers
  // apart, and groups of 32 k are `group` numbers apart.
  template <bool fresh>
  void multiply(
      int64_t count, const Half* a, int64_t next, int64_t stride, int64_t group, const Half* b, int64_t groups, float* z) const {
    // The intrinsics do not tell the compiler that they read and write memory.
    __asm__ volatile("" ::: "memory");
    for (int64_t i = 0; i < count; i += 2) {
      float* const to = z + i * kTileLines * kTileColumns;
      if (!tiles_) {
        if (fresh) std::memset(to, 0, (i + 1 < count ? 2 : 1) * kTileLines * kTileColumns * sizeof(float));
        in_vectors(a + i * next, stride, group, b, groups, to);
        if (i + 1 < count) in_vectors(a + (i + 1) * next, stride, group, b, groups, to + kTileLines * kTileColumns);
      } else if (i + 1 < count) {
        in_tiles<fresh>(a + i * next, a + (i + 1) * next, stride, group, b, groups, to);
      } else {
        in_tiles<fresh>(a + i * next, stride, group, b, groups, to);
      }
    }
    __asm__ volatile("" ::: "memory");
  }

 private:
  static constexpr int kLine = kTileColumns * sizeof(float);

  template <bool fresh>
  static void in_tiles(
      const Half* upper, const Half* lower, int64_t stride, int64_t group, const Half* b, int64_t groups, float* z) {
    float* const below = z + kTileLines * kTileColumns;
    if constexpr (fresh) {
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
    } else {
      _tile_loadd(0, z, kLine);
      _tile_loadd(1, z + 16, kLine);
      _tile_loadd(2, below, kLine);
      _tile_loadd(3, below + 16, kLine);
    }
    for (int64_t g = 0; g < groups; ++g, upper += group, lower += group, b += kGroup) {
      _tile_loadd(4, upper, stride * 2);
      _tile_loadd(6, b, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, b + kGroup / 2, 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, lower, stride * 2);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, z, kLine);
    _tile_stored(1, z + 16, kLine);
    _tile_stored(2, below, kLine);
    _tile_stored(3, below + 16, kLine);
  }

  template <bool fresh>
  static void in_tiles(const Half* a, int64_t stride, int64_t group, const Half* b, int64_t groups, float* z) {
    if constexpr (fresh) {
      _tile_zero(0);
      _tile_zero(1);
    } else {
      _tile_loadd(0, z, kLine);
      _tile_loadd(1, z + 16, kLine);
    }
    for (int64_t g = 0; g < groups; ++g, a += group, b += kGroup) {
      _tile_loadd(4, a, stride * 2);
      _tile_loadd(6, b, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, b + kGroup / 2, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    _tile_stored(0, z, kLine);
    _tile_stored(1, z + 16, kLine);
  }

  static void in_vectors(const Half* a, int64_t stride, int64_t group, const Half* b, int64_t groups, float* z) {
    constexpr int together = 4;
    for (int row = 0; row < kTileLines; row += together) {
      Vector<float> sum[together][2];
      for (int r = 0; r < together; ++r) {
        for (int half = 0; half < 2; ++half) sum[r][half] = load<float>(z + (row + r) * kTileColumns + half * 16);
      }
      for (int64_t g = 0; g < groups; ++g) {
        for (int k = 0; k < kTileDepth; k += 2) {
          for (int half = 0; half < 2; ++half) {
            Bits pair;
            std::memcpy(&pair, b + g * kGroup + half * (kGroup / 2) + k * 16, sizeof pair);
            const Vector<float> even = Vector<float>(pair << 16), odd = Vector<float>(pair & 0xffff0000);
            for (int r = 0; r < together; ++r) {
              const Half* const numbers = a + g * group + (row + r) * stride + k;
              sum[r][half] += wide(numbers[0]) * even + wide(numbers[1]) * odd;
            }
          }
        }
      }
      for (int r = 0; r < together; ++r) {
        for (int half = 0; half < 2; ++half) store<float>(z + (row + r) * kTileColumns + half * 16, sum[r][half]);
      }
    }
  }

  static float wide(Half x) {
    const uint32_t bits = uint32_t(x) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }

  const bool tiles_;
};

#endif

}  // namespace seqmem::SEQMEM_ISA
