// Time loops of each cell, as entries of the table of an instruction set.
#pragma once

#include <cstdint>

#include "sequence_backward.h"
#include "sequence_cells.h"
#include "sequence_forward.h"

namespace seqmem::SEQMEM_ISA {

template <typename T, typename Pointwise, bool bf16>
static int64_t workspace(const Sequence<T>& s, int64_t rows, bool backward) {
  Arena<T> arena{nullptr};
  if (backward) {
    Backward<T, Pointwise, bf16>(s, 0, rows, arena, nullptr);
  } else {
    Forward<T, Pointwise, bf16>(s, 0, rows, arena);
  }
  return arena.used;
}

template <typename T, typename Pointwise, bool bf16>
static void forward(const Sequence<T>& s, int64_t first, int64_t rows, T* workspace) {
  Arena<T> arena{workspace};
  Forward<T, Pointwise, bf16>(s, first, rows, arena).run();
}

template <typename T, typename Pointwise, bool bf16>
static void backward(const Sequence<T>& s, int64_t first, int64_t rows, T* workspace, T* weight_grads) {
  Arena<T> arena{workspace};
  Backward<T, Pointwise, bf16>(s, first, rows, arena, weight_grads).run();
}

template <typename T, typename Pointwise, bool bf16>
static SequenceKernels<T> kernels_of() {
  return {
      kLanes<T>,
      8 * kMaxRows<T>,
      gradient_layout<T, Pointwise, bf16>,
      workspace<T, Pointwise, bf16>,
      packed_size<T, Pointwise, bf16>,
      panels<T, Pointwise>,
      pack<T, Pointwise, bf16>,
      forward<T, Pointwise, bf16>,
      backward<T, Pointwise, bf16>};
}

template <typename T, bool bf16>
static SequenceKernels<T> kernels_for(Cell cell) {
  switch (cell) {
    case Cell::lstm:
      return kernels_of<T, LstmPointwise<T>, bf16>();
    case Cell::gru:
      return kernels_of<T, GruPointwise<T>, bf16>();
    case Cell::gru_reset_before:
      return kernels_of<T, GruResetBeforePointwise<T>, bf16>();
    case Cell::modrelu:
      if constexpr (!bf16) return kernels_of<T, ModreluPointwise<T>, bf16>();
      break;  // not reached: its operator has no bfloat16 products
    case Cell::memory_ungated:
      return kernels_of<T, MemoryPointwise<T, false>, bf16>();
    case Cell::memory:
      break;
  }
  return kernels_of<T, MemoryPointwise<T, true>, bf16>();
}

}  // namespace seqmem::SEQMEM_ISA
