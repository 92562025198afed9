// Arguments of a selective scan over whole sequences, and the table of its loops for one instruction set.
// seqmem/ops/selective_scan.py has the equations and the reference.
//
// A task is one batch row and one group of channels. Tasks are independent; the sums over channels or rows are added up task
// by task afterwards, so that results do not depend on the number of threads.
#pragma once

#include "shared.h"

#include <cstdint>

#include "kernels.h"
#include "sequence.h"

namespace seqmem {

constexpr int64_t kMostChannels = 256, kFewestChannels = 64;  // of a task, so that their states and sums stay in cache
constexpr int64_t kEnoughTasks = 16;                          // with fewer, tasks get fewer channels
constexpr int kStateBlock = 4;  // states of a channel whose loops over the steps of a chunk run together

// A tensor (B, T, size) whose last dimension is contiguous; null if it is absent.
template <typename T>
struct Steps {
  const T* data;
  int64_t row_stride, step_stride;

  const T* at(int64_t row, int64_t step) const { return data + row * row_stride + step * step_stride; }
};

template <typename T>
struct SelectiveScan {
  int64_t batch, steps, channels, states, chunk_steps;
  int64_t group_channels;  // of a task
  bool softplus;
  bool streams;            // non-temporal stores: results exceed the caches, and their rows are whole cache lines
  const int64_t* lengths;  // (B,), or null
  Steps<T> inputs, delta, b, c, gate;
  const T* rates;              // a log2(e), (padded states, padded channels), zero in the padding
  const T *skip, *delta_bias;  // (padded channels,), zeros if absent
  const T* initial;            // (B, D, N), or null
  T *outputs, *final;
  T* saved;  // (B, chunks, padded states, padded channels) states before each chunk, or null

  Steps<T> grad_outputs;
  const T* grad_final;
  T *grad_inputs, *grad_delta, *grad_gate, *grad_initial;
  T *grad_b, *grad_c;              // (groups, B, T, N)
  T* grad_a;                       // (B, padded states, padded channels)
  T *grad_skip, *grad_delta_bias;  // (B, padded channels)

  int64_t groups() const { return (channels + group_channels - 1) / group_channels; }
  int64_t padded_channels() const { return round_up(channels, kMaxLanes); }
  int64_t padded_states() const { return round_up(states, kStateBlock); }
  int64_t chunks() const { return (steps + chunk_steps - 1) / chunk_steps; }
  int64_t length(int64_t row) const { return lengths == nullptr ? steps : lengths[row]; }
};

template <typename T>
struct SelectiveScanKernels {
  int64_t (*workspace)(const SelectiveScan<T>&, bool backward);  // numbers of the workspace of a task
  void (*forward)(const SelectiveScan<T>&, int64_t row, int64_t group, T* workspace);
  void (*backward)(const SelectiveScan<T>&, int64_t row, int64_t group, T* workspace);
};

struct SelectiveScanTable {
  SelectiveScanKernels<float> f32;
  SelectiveScanKernels<double> f64;
};

}  // namespace seqmem
