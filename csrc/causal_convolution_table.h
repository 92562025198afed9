// Table of the causal convolution of one instruction set; included last by each causal_convolution_*.cpp.
#pragma once

#include "causal_convolution_loops.h"

namespace seqmem::SEQMEM_ISA {

template <typename T>
static void causal_convolution_forward(const CausalConvolution<T>& s, int64_t row, int64_t group) {
  CausalConvolutionTask<T>(s, row, group).forward();
}

template <typename T>
static void causal_convolution_backward(const CausalConvolution<T>& s, int64_t row, int64_t group) {
  CausalConvolutionTask<T>(s, row, group).backward();
}

CausalConvolutionTable causal_convolution_table() {
  return {
      causal_convolution_forward<float>, causal_convolution_backward<float>, causal_convolution_forward<double>,
      causal_convolution_backward<double>};
}

}  // namespace seqmem::SEQMEM_ISA
