// Forward and backward of a call over a whole sequence, common to all cells.
#pragma once

#include "shared.h"

#include <ATen/core/Tensor.h>

#include <string>

#include "checks.h"
#include "converted_tensors.h"
#include "sequence.h"

namespace seqmem::sequences {

using at::Tensor;

// Arguments of the operators of all cells.
struct Arguments {
  Cell cell;
  const char* name;
  Tensor inputs, hidden, memory;
  OptionalTensor lengths;
  OptionalTensor weight[kSources];
  OptionalTensor bias;  // (kGates H,)
  OptionalTensor weight_ux, weight_uh, weight_um, bias_u;
  OptionalTensor step_sizes, generators;  // of the memory: (T,) or (T, B), and (6, N) float64
  OptionalTensor step, drive;             // or a fixed step: (N, N) and (N,) float64
  double alpha = 0;                       // of the generalised bilinear transform
  Activation memory_activation = Activation::identity, hidden_activation = Activation::tanh;
  bool memory_output = false;
  bool bfloat16 = false;  // products of float32 tensors in bfloat16, with float32 sums
  ConvertedTensors converted;
  int64_t chunk_steps = 0;  // steps between two checkpoints, which backward processes at a time; 0 without gradients

  int64_t batch() const { return inputs.size(0); }
  int64_t steps() const { return inputs.size(1); }
  int64_t channels() const { return inputs.size(2); }
  int64_t size() const { return hidden.size(1); }
  bool has_memory() const { return cell == Cell::memory || cell == Cell::memory_ungated; }
  int64_t memories() const { return has_memory() ? memory.size(1) : 0; }
  int64_t order() const { return has_memory() ? memory.size(2) : 0; }
  int64_t output_width() const { return size() + (memory_output ? memories() * order() : 0); }
  // kSaved of the cell, see sequence_cells.h.
  int64_t saved_per_unit() const {
    switch (cell) {
      case Cell::memory:
        return 2;
      case Cell::memory_ungated:
      case Cell::modrelu:
        return 1;
      case Cell::lstm:
        return 5;
      case Cell::gru:
        return 4;
      case Cell::gru_reset_before:
        return 3;
    }
    return 0;
  }
  int64_t memory_gates() const { return cell == Cell::memory ? 2 : 1; }  // kGates of a cell with a memory
  int64_t chunks() const { return (steps() + chunk_steps - 1) / chunk_steps; }
  bool empty() const { return batch() == 0 || steps() == 0; }
};

struct Results {
  Tensor outputs, hidden, memory, saved, memory_inputs, checkpoints;
};

// Gradients of the results; absent for zero.
struct OutputGradients {
  OptionalTensor outputs, hidden, memory;
};

struct Gradients {
  Tensor inputs, hidden, memory;
  GradientLayout layout;
  int64_t lanes;
  Tensor weights;  // (layout.size,)

  Tensor part(int64_t start, at::IntArrayRef sizes) const {
    return weights.narrow(0, start, c10::multiply_integers(sizes)).view(sizes);
  }
  // Weight gradients of sections [first, first + count) and columns [column, column + columns): (count H, columns).
  Tensor gates(const Arguments& a, int64_t first, int64_t count, int64_t column, int64_t columns) const {
    const Tensor panels = part(layout.gates, {layout.sections, layout.panels, layout.rows, 2 * lanes});
    const Tensor selected = panels.narrow(0, first, count)
                                .narrow(2, column, columns)
                                .transpose(2, 3)
                                .reshape({count, layout.panels * 2 * lanes, columns})
                                .narrow(1, 0, a.size())
                                .reshape({count * a.size(), columns});
    return selected.is_alias_of(weights) ? selected.clone(at::MemoryFormat::Contiguous) : selected;
  }
};

// Both raise ValueError for inconsistent arguments.
Results forward(Arguments& a);
Gradients backward(Arguments& a, Results results, const OutputGradients& output_grads, bool input_gradient);

// How this processor multiplies in bfloat16: "tiles" (AMX), "vectors" (AVX512_BF16), or "rounded" (operands rounded to
// bfloat16, products in float32).
std::string bfloat16_products();

}  // namespace seqmem::sequences
