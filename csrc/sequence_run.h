// A call over a whole sequence: its tensors under one roof, and what becomes of them forward and back.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "checks.h"
#include "held.h"
#include "sequence.h"

namespace seqmem::sequences {

using at::Tensor;

// A cell's arguments under one roof.
struct Arguments {
  Cell cell;
  const char* name;
  Tensor inputs, hidden, memory;
  Maybe lengths;
  Maybe weight[kSources];
  Maybe bias;  // (kGates H,)
  Maybe weight_ux, weight_uh, weight_um, bias_u;
  Maybe step_sizes, generators;  // of the memory: (T,) or (T, B), (6, N) float64
  Maybe step, drive;             // or one step for all times: (N, N), (N,) float64
  double implicit = 0;
  Activation memory_activation = Activation::identity, hidden_activation = Activation::tanh;
  bool memory_output = false;
  bool bfloat16 = false;    // products of float32 tensors in bfloat16, with float32 sums
  Held held;
  int64_t chunk_steps = 0;  // steps between two checkpoints, all that is held of the way back at a time; 0 where there is none

  int64_t batch() const { return inputs.size(0); }
  int64_t steps() const { return inputs.size(1); }
  int64_t channels() const { return inputs.size(2); }
  int64_t size() const { return hidden.size(1); }
  bool has_memory() const { return cell == Cell::memory || cell == Cell::memory_ungated; }
  int64_t memories() const { return has_memory() ? memory.size(1) : 0; }
  int64_t order() const { return has_memory() ? memory.size(2) : 0; }
  int64_t output_width() const { return size() + (memory_output ? memories() * order() : 0); }
  int64_t saved_numbers() const { return cell == Cell::memory ? 2 : cell == Cell::memory_ungated ? 1 : cell == Cell::lstm ? 5 : 4; }
  int64_t gradients() const { return cell == Cell::memory ? 2 : cell == Cell::memory_ungated ? 1 : 4; }
  int64_t chunks() const { return (steps() + chunk_steps - 1) / chunk_steps; }
  bool empty() const { return batch() == 0 || steps() == 0; }
};

struct Results {
  Tensor outputs, hidden, memory, saved, written, checkpoints;
};

// What flows back besides what the forward pass kept.
struct Incoming {
  Maybe outputs, hidden, memory;
};

struct Gradients {
  Tensor inputs, hidden, memory;
  Totals layout;
  int64_t lanes;
  Tensor totals;  // (layout.size,)

  Tensor part(int64_t start, at::IntArrayRef sizes) const {
    return totals.narrow(0, start, c10::multiply_integers(sizes)).view(sizes);
  }
  // Sections [first, first + count) of the gates' gradients times `columns` columns from `column` on: (count H, columns).
  Tensor gates(const Arguments& a, int64_t first, int64_t count, int64_t column, int64_t columns) const {
    const Tensor all = part(layout.gates, {layout.sections, layout.panels, layout.lines, 2 * lanes});
    const Tensor chosen = all.narrow(0, first, count)
        .narrow(2, column, columns)
        .transpose(2, 3)
        .reshape({count, layout.panels * 2 * lanes, columns})
        .narrow(1, 0, a.size())
        .reshape({count * a.size(), columns});
    return chosen.is_alias_of(totals) ? chosen.clone(at::MemoryFormat::Contiguous) : chosen;
  }
};

// Raises ValueErrors where tensors do not fit together.
Results forward(Arguments& a);
Gradients backward(Arguments& a, Results results, const Incoming& incoming, bool input_gradient);

// How the sequences multiply in bfloat16: by tiles, by vectors, or not at all (empty).
std::string bfloat16_products();

}  // namespace seqmem::sequences
