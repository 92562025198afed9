// Table of the linear recurrences of one instruction set; included last by each scan_*.cpp.
#pragma once

#include "scan_diagonal.h"
#include "scan_gates.h"
#include "scan_oscillators.h"

namespace seqmem::SEQMEM_ISA {

template <typename T>
static ScanKernels<T> kernels_of_scans() {
  return {scan_forward<T>,      scan_backward<T>,       gates_loop<T, false>,
          gates_loop<T, true>, oscillators_forward<T>, oscillators_backward<T>};
}

ScanTable scan_table() { return {kernels_of_scans<float>(), kernels_of_scans<double>()}; }

}  // namespace seqmem::SEQMEM_ISA
