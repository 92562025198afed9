// What one call over a whole sequence of a hierarchical multiscale LSTM is given, and the loops that run it, one table for each
// instruction set. seqmem/cells/hmlstm.py has the equations.
//
// Rows of the batch are independent: each thread carries its rows through all layers and steps without waiting for the others.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "sequence.h"

namespace seqmem {

constexpr int kMultiscaleGates = 4;  // f, i, o, g

// One layer, and where its numbers are among those of all.
struct Layer {
  int64_t size, above, below;  // units of it and of its neighbours, 0 where there is none
  bool detects;
  int64_t unit;     // its first unit
  int64_t place;    // the same where each layer has whole vectors of kMaxLanes
  int64_t weight;   // its parameters, in the order of these: (rows, reads)
  int64_t bias;     // (rows,); -1, as the next, for none
  int64_t gain;     // (4 size,) of the normalised gates
  int64_t memory_gain, memory_bias;  // (size,) of the normalised memory

  int64_t padded() const { return round_up(size, kMaxLanes); }
  int64_t reads() const { return size + above + below; }
  int64_t rows() const { return kMultiscaleGates * size + detects; }
};

// The parts of what a layer reads, side by side in this order: itself and the layer above at the step before, the layer below.
enum Part { from_itself, from_above, from_below, kParts };

inline int64_t part_size(const Layer& layer, int part) {
  return part == from_itself ? layer.size : part == from_above ? layer.above : layer.below;
}

template <typename T>
struct Multiscale {
  const Layer* layers;
  int64_t count, units, places;  // layers, and the units of all of them: as they are, and in whole vectors
  int64_t steps, batch, width;   // width of what the bottom layer reads of the inputs
  bool soft, hard_sigmoid;
  T slope;

  const int64_t* lengths;  // (B,)
  const T* projected;      // (B, T, width)
  const T* draws;          // (T, B, L); null where no boundary is drawn
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
  T* saved;      // (T, B, kept); null for none. Of each layer: gates' sums, normalised or not, and c; then kNumbers of each
  int64_t kept;

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

// Single numbers kept of a layer: of each gate what its sums were multiplied with to normalise them, and dp/ds of the detector.
constexpr int64_t kNumbers = kMultiscaleGates + 1;

template <typename T>
int64_t kept_numbers(const Multiscale<T>& s) {
  return (kMultiscaleGates + 1) * s.places + round_up(kNumbers * s.count, kMaxLanes);
}

// What a thread sums of the gradients of a layer, from `start` on: detector's weights on each part, bias, gain, memory's gain and
// bias, each in whole vectors, and the detector's bias.
struct LayerTotals {
  int64_t detector[kParts], bias, gain, memory_gain, memory_bias, detector_bias, end;

  LayerTotals(const Layer& layer, int64_t start) {
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

// What the gates' weights' gradients of one layer are products of, for the rows and steps of a chunk that did not copy. They are
// sorted by what they read besides their own layer.
enum Branch { reads_above, reads_both, reads_below, kBranches };

template <typename T>
struct Collected {
  T* gradients;  // (rows and steps, 4 size)
  T* reads;      // (rows and steps, reads); parts that a branch does not read are left as they are
  int64_t count[kBranches];
};

template <typename T>
struct MultiscaleKernels {
  int most_rows;  // that one group should carry
  // Numbers of T that a group of `rows` rows works in, and that the packed parameters take.
  int64_t (*workspace)(const Multiscale<T>&, int64_t rows, bool backward);
  int64_t (*packed)(const Multiscale<T>&, bool backward);
  void (*pack)(const Multiscale<T>&, bool backward, int64_t layer);
  void (*forward)(const Multiscale<T>&, int64_t first, int64_t rows, T* workspace);
  // Steps [begin, end), which must come in the order from the last; the workspace holds what flows between chunks. Adds to
  // `totals`, the LayerTotals of all layers, and fills `collected`, one for each layer.
  void (*backward)(
      const Multiscale<T>&, int64_t first, int64_t rows, int64_t begin, int64_t end, T* workspace, T* totals,
      Collected<T>* collected);
};

struct MultiscaleTable {
  MultiscaleKernels<float> single;
  MultiscaleKernels<double> twice;
};

}  // namespace seqmem
