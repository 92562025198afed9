// Arguments of a call over a whole sequence of a hierarchical multiscale LSTM, and the table of its loops for one instruction
// set. seqmem/ops/multiscale.py has the equations and the reference.
//
// Batch rows are independent: each thread runs its rows through all layers and steps without synchronisation.
#pragma once

#include "shared.h"

#include <cstdint>

#include "kernels.h"
#include "sequence.h"

namespace seqmem {

constexpr int kMultiscaleGates = 4;  // f, i, o, g

// Sizes of one layer, and its offsets into the states and parameters of all layers.
struct Layer {
  int64_t size, above, below;  // units of the layer and of its neighbours; 0 for a missing neighbour
  bool has_detector;
  int64_t unit;                      // first unit
  int64_t padded_unit;               // first unit if every layer is padded to whole vectors of kMaxLanes
  int64_t weight;                    // offset of the weight (rows, input_size), as the following of the other parameters
  int64_t bias;                      // (rows,); -1, as the next, if absent
  int64_t gain;                      // (4 size,) of the gates' normalisation
  int64_t memory_gain, memory_bias;  // (size,) of the memory's normalisation

  int64_t padded() const { return round_up(size, kMaxLanes); }
  int64_t input_size() const { return size + above + below; }
  int64_t rows() const { return kMultiscaleGates * size + has_detector; }
};

// Inputs of a layer, concatenated in this order: itself and the layer above at the previous step, and the layer below.
enum Part { from_itself, from_above, from_below, kParts };

inline int64_t part_size(const Layer& layer, int part) {
  return part == from_itself ? layer.size : part == from_above ? layer.above : layer.below;
}

template <typename T>
struct Multiscale {
  const Layer* layers;
  int64_t count, units, padded_units;  // number of layers; units of all layers, without and with padding
  int64_t steps, batch, width;         // width of the projected inputs
  bool soft, hard_sigmoid;
  T slope;

  const int64_t* lengths;  // (B,)
  const T* projected;      // (B, T, width)
  const T* draws;          // (T, B, L) uniform numbers; null for deterministic boundaries
  const T* hidden_before;  // (B, units)
  const T* memory_before;
  const T* boundary_before;  // (B, L)
  const T* parameters;
  T* packed;

  T* outputs;     // (B, T, units)
  T* boundaries;  // (B, T, L)
  T* hidden_after;
  T* memory_after;
  T* boundary_after;
  // (T, B, saved_size): gate sums (normalised) and c of every layer, then kSavedScalars of each; null without gradients.
  T* saved;
  int64_t saved_size;

  const T* grad_outputs;  // null for zero, as the next
  const T* grad_boundaries;
  const T* grad_hidden_after;
  const T* grad_memory_after;
  const T* grad_boundary_after;
  T* grad_projected;
  T* grad_hidden_before;
  T* grad_memory_before;
  T* grad_boundary_before;
  int64_t chunk_steps;
};

// Scalars saved per layer: the scale that normalised each gate's sums, and dp/ds of the detector.
constexpr int64_t kSavedScalars = kMultiscaleGates + 1;

template <typename T>
int64_t saved_size(const Multiscale<T>& s) {
  return (kMultiscaleGates + 1) * s.padded_units + round_up(kSavedScalars * s.count, kMaxLanes);
}

// Offsets, from `start` on, of the gradients that a thread accumulates for a layer: detector weights of each part, bias, gain,
// and memory gain and bias, each padded to whole vectors, and the detector bias. The gates' weights are in GradientOperands.
struct LayerGradients {
  int64_t detector[kParts], bias, gain, memory_gain, memory_bias, detector_bias, end;

  LayerGradients(const Layer& layer, int64_t start) {
    const auto take = [&](int64_t numbers) {
      const int64_t at = start;
      start += round_up(numbers, kMaxLanes);
      return at;
    };
    for (int part = 0; part < kParts; ++part) detector[part] = take(part_size(layer, part));
    bias = take(kMultiscaleGates * layer.padded());
    gain = take(kMultiscaleGates * layer.padded());
    memory_gain = take(layer.padded());
    memory_bias = take(layer.padded());
    detector_bias = take(1);
    end = start;
  }
};

// Branch of a layer's update at a step, by the neighbours that are inputs: FLUSH (above_only, above_and_below) or UPDATE
// (below_only). COPY has no branch.
enum Branch { above_only, above_and_below, below_only, kBranches };

// Factors of the gradients of one layer's gate weights: the rows of all steps of a chunk not in COPY, sorted by branch.
template <typename T>
struct GradientOperands {
  T* gradients;  // (rows, 4 size)
  T* inputs;     // (rows, input_size); inputs that a branch does not use are undefined
  int64_t count[kBranches];
};

template <typename T>
struct MultiscaleKernels {
  int group_rows;  // most rows of a group
  // Numbers of the workspace of a group of `rows` rows, and of the packed parameters.
  int64_t (*workspace)(const Multiscale<T>&, int64_t rows, bool backward);
  int64_t (*packed)(const Multiscale<T>&, bool backward);
  void (*pack)(const Multiscale<T>&, bool backward, int64_t layer);
  void (*forward)(const Multiscale<T>&, int64_t first, int64_t rows, T* workspace);
  // Steps [begin, end) of a chunk. Chunks must run from the last to the first; the workspace carries the state gradients
  // between them. Adds to `weight_grads`, the LayerGradients of all layers, and fills `operands` of each layer.
  void (*backward)(
      const Multiscale<T>&, int64_t first, int64_t rows, int64_t begin, int64_t end, T* workspace, T* weight_grads,
      GradientOperands<T>* operands);
};

struct MultiscaleTable {
  MultiscaleKernels<float> f32;
  MultiscaleKernels<double> f64;
};

}  // namespace seqmem
