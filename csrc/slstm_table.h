// Table of the sLSTM loops of one instruction set; included last by each slstm_*.cpp.
#pragma once

#include "slstm_backward.h"
#include "slstm_forward.h"

namespace seqmem::SEQMEM_ISA {

template <typename T>
static int64_t slstm_workspace(const Slstm<T>& s, int64_t rows, bool backward) {
  Arena<T> arena{nullptr};
  if (backward) {
    SlstmBackward<T>(s, 0, 0, rows, arena, nullptr);
  } else {
    SlstmForward<T>(s, 0, 0, rows, arena);
  }
  return arena.used;
}

template <typename T>
static void slstm_forward(const Slstm<T>& s, int64_t head, int64_t first, int64_t rows, T* workspace) {
  Arena<T> arena{workspace};
  SlstmForward<T>(s, head, first, rows, arena).run();
}

template <typename T>
static void slstm_backward(const Slstm<T>& s, int64_t head, int64_t first, int64_t rows, T* workspace, T* weight_grads) {
  Arena<T> arena{workspace};
  SlstmBackward<T>(s, head, first, rows, arena, weight_grads).run();
}

template <typename T>
static SlstmKernels<T> slstm_kernels() {
  return {kLanes<T>, kMaxRows<T>, slstm_workspace<T>, slstm_pack<T>, slstm_forward<T>, slstm_backward<T>};
}

SlstmTable slstm_table() { return {slstm_kernels<float>(), slstm_kernels<double>()}; }

}  // namespace seqmem::SEQMEM_ISA
