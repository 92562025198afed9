// Table of the selective scan of one instruction set; included last by each selective_scan_*.cpp.
#pragma once

#include "selective_scan_backward.h"
#include "selective_scan_forward.h"

namespace seqmem::SEQMEM_ISA {

template <typename T>
static int64_t selective_scan_workspace(const SelectiveScan<T>& s, bool backward) {
  Arena<T> arena{nullptr};
  if (backward) {
    SelectiveScanBackward<T>(s, 0, 0, arena);
  } else {
    SelectiveScanForward<T>(s, 0, 0, arena);
  }
  return arena.used;
}

template <typename T>
static void selective_scan_forward(const SelectiveScan<T>& s, int64_t row, int64_t group, T* workspace) {
  Arena<T> arena{workspace};
  SelectiveScanForward<T>(s, row, group, arena).run();
}

template <typename T>
static void selective_scan_backward(const SelectiveScan<T>& s, int64_t row, int64_t group, T* workspace) {
  Arena<T> arena{workspace};
  SelectiveScanBackward<T>(s, row, group, arena).run();
}

template <typename T>
static SelectiveScanKernels<T> selective_scan_kernels() {
  return {selective_scan_workspace<T>, selective_scan_forward<T>, selective_scan_backward<T>};
}

SelectiveScanTable selective_scan_table() { return {selective_scan_kernels<float>(), selective_scan_kernels<double>()}; }

}  // namespace seqmem::SEQMEM_ISA
