// What one call over a whole sequence is given, and the loops that run it, one table for each instruction set.
//
// Rows of the batch are independent: each thread carries its rows through all steps without waiting for the others.
#pragma once

#include <cstdint>

#include "generators.h"

namespace seqmem {

enum class Cell { memory, memory_ungated, lstm, gru };
enum class Activation { identity, tanh, relu, sigmoid };

// What the gates are products of, side by side in this order.
enum Source { from_memory, from_hidden, from_input, kSources };

// What the weights' gradients are sums of, side by side in this order: memory, hidden state, 1, input. A part that no weight
// needs has no columns.
struct Columns {
  int64_t memory, hidden, one, input, all;  // where each starts, and how many there are
};

template <typename T>
struct Sequence {
  Cell cell;
  int64_t steps, batch, channels, hidden, memories, order;
  Activation memory_activation, hidden_activation;

  const T* inputs;  // (B, T, C) with the channels side by side
  int64_t input_row, input_step;
  const int64_t* lengths;     // (B,)
  const double* step_sizes;   // (T,), or (T, B) where rows have their own
  bool own_step_sizes;
  double implicit;            // share of a step that is taken implicitly
  Generators<T> generators;   // of the memory's transition, or
  const T* step;              // a step of it, c' = S c + drive f, packed as the products read it: (panels of 2W n, k, 2W)
  const T* step_transposed;
  const T* drive;             // (N,)
  const T* hidden_before;     // (B, H)
  const T* memory_before;     // (B, M, N), LSTM: (B, H)

  const T* weight[kSources];  // (rows, columns) of the gates; null where a source is switched off
  const T* bias;              // of the gates, kGates x H in the order of the loops; null for none
  const T* weight_ux;         // of what is written to the memory; each null where it is switched off
  const T* weight_uh;
  const T* weight_um;
  const T* bias_u;

  bool tiles;                 // where products are in bfloat16: whether by AMX

  T* packed;                  // the weights as the loops read them, see `pack`

  bool streams;               // outputs and saved are too large to be found in a cache again
  T* outputs;                 // (B, T, output_width)
  int64_t output_width;       // H, or H + M N where the memory is an output
  T* hidden_after;            // (B, H)
  T* memory_after;            // as memory_before
  T* saved;                   // (T, B, kSaved, H up to a multiple of kMaxLanes) activated gates; null for none
  T* written;                 // (T, B, M)
  T* checkpoints;             // (chunks, B, M, N) memory before each chunk
  int64_t chunk_steps;

  const T* grad_outputs;      // as outputs; null for zero, as the next two
  const T* grad_hidden_after;
  const T* grad_memory_after;
  T* grad_hidden_before;
  T* grad_memory_before;
  T* grad_inputs;             // (B, T, C); null where it is not asked for
};

// The sums that are the weights' gradients, one such piece for each thread.
struct Totals {
  Columns columns;
  int64_t sections, panels;  // of the gates' gradients, and panels of 2W hidden units in each
  int64_t lines;             // columns.all or a few more
  int64_t gates;             // where they start: (sections, panels, lines, 2W)
  int64_t weight_uh;         // (M, H padded)
  int64_t weight_um;         // (M, N, W), to be summed over the last dimension as the next two
  int64_t weight_ux;         // (M, C, W)
  int64_t bias_u;            // (M, W)
  int64_t size;
};

template <typename T>
struct SequenceKernels {
  int lanes;      // W
  int most_rows;  // that one group should carry
  Totals (*totals)(const Sequence<T>&);
  // Numbers of T that a group of `rows` rows works in, and that the packed weights take.
  int64_t (*workspace)(const Sequence<T>&, int64_t rows, bool backward);
  int64_t (*packed)(const Sequence<T>&, bool backward);
  int64_t (*panels)(const Sequence<T>&, bool backward);
  // Pack panels [begin, end) of the weights.
  void (*pack)(const Sequence<T>&, bool backward, int64_t begin, int64_t end);
  void (*forward)(const Sequence<T>&, int64_t first, int64_t rows, T* workspace);
  // Adds to `totals`.
  void (*backward)(const Sequence<T>&, int64_t first, int64_t rows, T* workspace, T* totals);
};

struct SequenceTable {
  SequenceKernels<float> (*single)(Cell);
  SequenceKernels<double> (*twice)(Cell);
  SequenceKernels<float> (*half)(Cell);  // products in bfloat16; null where they would be no faster
};

constexpr int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace seqmem
