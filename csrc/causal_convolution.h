// Arguments of a causal depthwise convolution over whole sequences, and the table of its loops for one instruction set.
// seqmem/ops/causal_convolution.py has the equation and the reference.
//
// A task is one batch row and one group of channels. Tasks are independent; the sums over rows are added up row by row
// afterwards, so that results do not depend on the number of threads.
#pragma once

#include "shared.h"

#include <cstdint>

#include "kernels.h"
#include "sequence.h"

namespace seqmem {

constexpr int64_t kConvolutionChannels = 128;  // of a task: eight cache lines of a row

template <typename T>
struct CausalConvolution {
  int64_t batch, steps, channels, taps;
  bool streams;            // non-temporal stores: results exceed the caches, and their rows are whole cache lines
  const int64_t* lengths;  // (B,), or null
  const bool* restarts;    // (B, T), or null
  const T* inputs;         // (B, T, C) with contiguous channels
  int64_t row_stride, step_stride;
  const T* weight;   // (taps, padded channels), as the next zero in the padding
  const T* bias;     // (padded channels,)
  const T* initial;  // (B, taps - 1, C), or null
  T *outputs, *final;

  const T* grad_outputs;  // (B, T, C) with contiguous channels, or null
  int64_t grad_row_stride, grad_step_stride;
  const T* grad_final;  // (B, taps - 1, C), or null
  T *grad_inputs, *grad_initial;
  T* grad_parameters;  // (B, taps + 1, padded channels): of the weight and the bias

  int64_t groups() const { return (channels + kConvolutionChannels - 1) / kConvolutionChannels; }
  int64_t padded_channels() const { return round_up(channels, kMaxLanes); }
  int64_t length(int64_t row) const { return lengths == nullptr ? steps : lengths[row]; }
};

template <typename T>
using CausalConvolutionLoop = void (*)(const CausalConvolution<T>&, int64_t row, int64_t group);

struct CausalConvolutionTable {
  CausalConvolutionLoop<float> forward_f32, backward_f32;
  CausalConvolutionLoop<double> forward_f64, backward_f64;
};

}  // namespace seqmem
