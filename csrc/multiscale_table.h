// Table of the multiscale loops of one instruction set; included last by each multiscale_*.cpp.
#pragma once

#include "multiscale_backward.h"
#include "multiscale_forward.h"

namespace seqmem::SEQMEM_ISA {

template <typename T>
static int64_t multiscale_workspace(const Multiscale<T>& s, int64_t rows, bool backward) {
  Arena<T> arena{nullptr};
  if (backward) {
    MultiscaleBackward<T>(s, 0, rows, arena, nullptr, nullptr);
  } else {
    MultiscaleForward<T>(s, 0, rows, arena);
  }
  return arena.used;
}

template <typename T>
static void multiscale_forward(const Multiscale<T>& s, int64_t first, int64_t rows, T* workspace) {
  Arena<T> arena{workspace};
  MultiscaleForward<T>(s, first, rows, arena).run();
}

template <typename T>
static void multiscale_backward(
    const Multiscale<T>& s, int64_t first, int64_t rows, int64_t begin, int64_t end, T* workspace, T* weight_grads,
    GradientOperands<T>* operands) {
  Arena<T> arena{workspace};
  MultiscaleBackward<T>(s, first, rows, arena, weight_grads, operands).run(begin, end);
}

template <typename T>
static MultiscaleKernels<T> multiscale_kernels() {
  return {8 * kMaxRows<T>,    multiscale_workspace<T>, multiscale_packed_size<T>,
          multiscale_pack<T>, multiscale_forward<T>,   multiscale_backward<T>};
}

MultiscaleTable multiscale_table() { return {multiscale_kernels<float>(), multiscale_kernels<double>()}; }

}  // namespace seqmem::SEQMEM_ISA
