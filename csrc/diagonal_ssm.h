// Arguments of a call over a whole sequence of diagonal state space models, and the table of its loops for one instruction set.
// seqmem/ops/diagonal_ssm.py has the equations and the reference.
//
// A vector holds one mode of W channels. A task is one row of one vector of channels: its x and y of a chunk of steps stay in
// the first-level cache while one or a few modes at a time run through them, so that the states of a chunk exist only in backward.
#pragma once

#include "shared.h"

#include <cstdint>

#include "kernels.h"
#include "sequence.h"

namespace seqmem {

template <typename T>
struct DiagonalSSM {
  int64_t batch, steps, channels, modes;
  int64_t padded;       // channels, padded to whole vectors of kMaxLanes
  int64_t chunk_steps;  // steps of a chunk
  bool reverse;         // from each row's last valid step to the first

  const int64_t* lengths;  // (B,)
  const T* inputs;         // (B, T, H)
  const T* a;              // (M, 2, padded), as the next two
  const T* b;              // null for 1
  const T* c;
  const T* skip;     // (padded,); null for zero
  const T* initial;  // (B, H, M, 2); null for zero

  T* outputs;  // (B, T, H)
  T* final;    // (B, H, M, 2)
  T* saved;    // (B, chunks, M, 2, padded) the state before each chunk; null without gradients

  const T* grad_outputs;  // null for zero, as the next
  const T* grad_final;
  T* grad_inputs;   // null if not needed
  T* grad_initial;  // null if there is no initial state

  int64_t chunks() const { return (steps + chunk_steps - 1) / chunk_steps; }
  int64_t length(int64_t row) const { return lengths == nullptr ? steps : lengths[row]; }
  int64_t state_size() const { return 2 * modes * padded; }

  // Without b, a state before the first step and a gradient of the final one, backward runs its recurrence on the gradients of
  // the outputs alone and multiplies by conj(c) where it uses the result.
  bool is_unit() const { return b == nullptr && initial == nullptr && grad_final == nullptr; }
};

// Sums over the rows of a group: gradients of a, b, c (M, 2, padded) and skip (padded).
template <typename T>
struct DiagonalSSMGradients {
  T *a, *b, *c, *skip;
};

template <typename T>
struct DiagonalSSMKernels {
  int lanes;
  int64_t (*workspace)(const DiagonalSSM<T>&, bool backward);  // numbers of the workspace of a thread
  // One row of the channels [lanes * block, lanes * (block + 1)), of which some may be padding.
  void (*forward)(const DiagonalSSM<T>&, int64_t row, int64_t block, T* workspace);
  // The same; adds to the sums.
  void (*backward)(
      const DiagonalSSM<T>&, int64_t row, int64_t block, const DiagonalSSMGradients<T>& sums, T* workspace);
};

struct DiagonalSSMTable {
  DiagonalSSMKernels<float> f32;
  DiagonalSSMKernels<double> f64;
};

}  // namespace seqmem
