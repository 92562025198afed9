// Table of the loops of diagonal state space models of one instruction set; included last by each diagonal_ssm_*.cpp.
#pragma once

#include "diagonal_ssm_backward.h"
#include "diagonal_ssm_forward.h"

namespace seqmem::SEQMEM_ISA {

template <typename T>
static int64_t diagonal_ssm_workspace(const DiagonalSSM<T>& s, bool backward) {
  Arena<T> arena{nullptr};
  const int64_t steps = s.chunk_steps * kLanes<T>, state = 2 * s.modes * kLanes<T>;
  const int64_t chunk = kForwardModes * (s.chunk_steps + 1) * 2 * kLanes<T>;
  arena.allocate(2 * steps + state);
  if (backward) arena.allocate(steps + chunk + state);
  return arena.used + 6 * kMaxLanes;  // each piece is rounded up
}

template <typename T>
static DiagonalSSMKernels<T> diagonal_ssm_kernels() {
  return {kLanes<T>, diagonal_ssm_workspace<T>, diagonal_ssm_forward<T>, diagonal_ssm_backward<T>};
}

DiagonalSSMTable diagonal_ssm_table() { return {diagonal_ssm_kernels<float>(), diagonal_ssm_kernels<double>()}; }

}  // namespace seqmem::SEQMEM_ISA
