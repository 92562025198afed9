// Arguments of a call over a whole sequence, and the table of its time loops for one instruction set.
//
// Batch rows are independent: each thread runs its rows through all steps without synchronisation.
#pragma once

#include "shared.h"

#include <cstdint>

#include "generators.h"

namespace seqmem {

enum class Cell { memory, memory_ungated, lstm, gru, gru_reset_before, modrelu };
enum class Activation { identity, tanh, relu, sigmoid };

// Operands of the gates' products, concatenated in this order. A cell with a reset gate before the product has r h, its hidden
// state times that gate, in the place of the memory.
enum Source { from_memory, from_hidden, from_input, kSources };

// Columns of the weight gradients: memory, hidden state, bias, input. A part that no weight needs has no columns.
struct Columns {
  int64_t memory, hidden, bias, input, count;  // first column of each part, and the number of columns
};

template <typename T>
struct Sequence {
  Cell cell;
  int64_t steps, batch, channels, hidden, memories, order;
  Activation memory_activation, hidden_activation;

  const T* inputs;  // (B, T, C) with contiguous channels
  int64_t input_row, input_step;
  const int64_t* lengths;    // (B,)
  const double* step_sizes;  // (T,), or (T, B) with one step size per row
  bool per_row_step_sizes;
  double alpha;              // of the generalised bilinear transform
  Generators<T> generators;  // of the memory's transition, or
  const T* step;             // a fixed step c' = S c + drive f, S packed for the products: (panels of 2W n, k, 2W)
  const T* step_transposed;
  const T* drive;          // (N,)
  const T* hidden_before;  // (B, H)
  const T* memory_before;  // (B, M, N), LSTM: (B, H)

  const T* weight[kSources];  // (rows, columns) of the gates; null if the cell has no such weight
  const T* bias;              // of the gates, (kGates, H) in the order of the loops; null for no bias
  const T* weight_ux;         // of the memory input, as the next three; each null if the cell has none
  const T* weight_uh;
  const T* weight_um;
  const T* bias_u;

  bool amx;     // bfloat16 products by AMX
  bool rounds;  // products in float32 of operands that are rounded to bfloat16

  T* packed;  // packed weights, see sequence_pack.h

  bool streams;          // non-temporal stores: outputs and saved exceed the caches
  T* outputs;            // (B, T, output_width)
  int64_t output_width;  // H, or H + M N if the memory is an output
  T* hidden_after;       // (B, H)
  T* memory_after;       // as memory_before
  T* saved;              // (T, B, kSaved, H rounded up to kMaxLanes) activated gates; null without gradients
  T* memory_inputs;      // (T, B, M)
  T* checkpoints;        // (chunks, B, M, N) memory before each chunk
  int64_t chunk_steps;

  const T* grad_outputs;  // as outputs; null for zero, as the next two
  const T* grad_hidden_after;
  const T* grad_memory_after;
  T* grad_hidden_before;
  T* grad_memory_before;
  T* grad_inputs;  // (B, T, C); null if not required
};

// Layout of the weight gradients that one thread accumulates: offsets of the parts, and their shapes.
struct GradientLayout {
  Columns columns;
  int64_t sections, panels;  // sections of the gates' gradients, and panels of 2W hidden units in each
  int64_t rows;              // columns.count, rounded up for bfloat16 products
  int64_t gates;             // (sections, panels, rows, 2W)
  int64_t weight_uh;         // (M, H padded)
  int64_t weight_um;         // (M, N, W), to sum over the last dimension, as the next two
  int64_t weight_ux;         // (M, C, W)
  int64_t bias_u;            // (M, W)
  int64_t size;
};

template <typename T>
struct SequenceKernels {
  int lanes;       // W
  int group_rows;  // most rows of a group
  GradientLayout (*gradient_layout)(const Sequence<T>&);
  // Numbers of the workspace of a group of `rows` rows, and of the packed weights.
  int64_t (*workspace)(const Sequence<T>&, int64_t rows, bool backward);
  int64_t (*packed)(const Sequence<T>&, bool backward);
  int64_t (*panels)(const Sequence<T>&, bool backward);
  // Packs panels [begin, end) of the weights.
  void (*pack)(const Sequence<T>&, bool backward, int64_t begin, int64_t end);
  void (*forward)(const Sequence<T>&, int64_t first, int64_t rows, T* workspace);
  // Adds the weight gradients to `weight_grads`, see GradientLayout.
  void (*backward)(const Sequence<T>&, int64_t first, int64_t rows, T* workspace, T* weight_grads);
};

struct SequenceTable {
  SequenceKernels<float> (*f32)(Cell);
  SequenceKernels<double> (*f64)(Cell);
  SequenceKernels<float> (*bf16)(Cell);  // float32 with bfloat16 products; null without AVX512_BF16
};

constexpr int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace seqmem
