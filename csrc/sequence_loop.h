// The loops of each cell as the table of an instruction set holds them.
#pragma once

#include <cstdint>

#include "sequence_backward.h"
#include "sequence_cells.h"
#include "sequence_forward.h"

namespace seqmem::SEQMEM_ISA {

template <typename T, typename Rule, bool half>
static int64_t workspace(const Sequence<T>& s, int64_t rows, bool backward) {
  Arena<T> arena{nullptr};
  if (backward) {
    Backward<T, Rule, half>(s, 0, rows, arena, nullptr);
  } else {
    Forward<T, Rule, half>(s, 0, rows, arena);
  }
  return arena.used;
}

template <typename T, typename Rule, bool half>
static void forward(const Sequence<T>& s, int64_t first, int64_t rows, T* workspace) {
  Arena<T> arena{workspace};
  Forward<T, Rule, half>(s, first, rows, arena).run();
}

template <typename T, typename Rule, bool half>
static void backward(const Sequence<T>& s, int64_t first, int64_t rows, T* workspace, T* totals) {
  Arena<T> arena{workspace};
  Backward<T, Rule, half>(s, first, rows, arena, totals).run();
}

template <typename T, typename Rule, bool half>
static SequenceKernels<T> kernels_of() {
  return {
      kLanes<T>,
      8 * kMaxRows<T>,
      totals<T, Rule, half>,
      workspace<T, Rule, half>,
      packed<T, Rule, half>,
      panels<T, Rule>,
      pack<T, Rule, half>,
      forward<T, Rule, half>,
      backward<T, Rule, half>};
}

template <typename T, bool half>
static SequenceKernels<T> kernels_for(Cell cell) {
  switch (cell) {
    case Cell::lstm:
      return kernels_of<T, LstmRule<T>, half>();
    case Cell::gru:
      return kernels_of<T, GruRule<T>, half>();
    case Cell::memory_ungated:
      return kernels_of<T, MemoryRule<T, false>, half>();
    case Cell::memory:
      break;
  }
  return kernels_of<T, MemoryRule<T, true>, half>();
}

}  // namespace seqmem::SEQMEM_ISA
