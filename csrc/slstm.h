// Arguments of a call over a whole sequence of an sLSTM, and the table of its loops for one instruction set.
// seqmem/ops/slstm.py has the equations and the reference.
//
// Rows of the batch and heads are independent: each thread runs some rows of one head through all steps without
// synchronisation.
#pragma once

#include "shared.h"

#include <cstdint>

#include "kernels.h"
#include "sequence.h"

namespace seqmem {

constexpr int kSlstmGates = 4;  // i, f, z, o
enum SlstmPart { slstm_hidden, slstm_memory, slstm_normalizer, slstm_stabilizer, kSlstmParts };

// Numbers saved per unit and step: exp(-|l - i|), negative where i is the greater one, tanh(z), sigmoid(o), sigmoid(-f). From
// the first two, backward computes c and n again for the steps after each checkpoint of both.
constexpr int kSlstmSaved = 4;
constexpr int64_t kSlstmInterval = 16;  // steps from one checkpoint to the next

template <typename T>
struct Slstm {
  int64_t steps, batch, heads, size;  // units of a head

  const int64_t* lengths;        // (B,)
  const T* projected;            // (B, T, 4H)
  const T* before[kSlstmParts];  // (B, H) each
  const T* weight;               // (heads, 4 size, size)
  T* packed;                     // per head and panel

  bool streams;  // non-temporal stores: outputs and saved exceed the caches
  T* outputs;    // (B, T, H)
  T* after[kSlstmParts];
  T* saved;  // (T, heads, B, kSlstmSaved, size rounded up to kMaxLanes); null without gradients
  T* checkpoints;  // (intervals, heads, B, 2, size rounded up to kMaxLanes): c and n before each

  const T* grad_outputs;  // null for zero, as the next
  const T* grad_after[kSlstmParts];
  T* grad_projected;  // null if not required
  T* grad_before[kSlstmParts];
  int64_t chunk_steps;  // of backward, a multiple of kSlstmInterval

  int64_t units() const { return heads * size; }
  int64_t saved_stride() const { return round_up(size, kMaxLanes); }
};

template <typename T>
struct SlstmKernels {
  int lanes;       // W
  int block_rows;  // most rows of a block
  // Numbers of the workspace of a group of `rows` rows.
  int64_t (*workspace)(const Slstm<T>&, int64_t rows, bool backward);
  // Packs the weights of a head: (panels of 2W units, 4, size, 2W) in forward, (panels, 4 size, 2W) in backward.
  void (*pack)(const Slstm<T>&, bool backward, int64_t head);
  void (*forward)(const Slstm<T>&, int64_t head, int64_t first, int64_t rows, T* workspace);
  // Adds the weight gradients of the head to `weight_grads`, (4, panels of 2W units, size, 2W).
  void (*backward)(const Slstm<T>&, int64_t head, int64_t first, int64_t rows, T* workspace, T* weight_grads);
};

struct SlstmTable {
  SlstmKernels<float> f32;
  SlstmKernels<double> f64;
};

}  // namespace seqmem
