// The operator torch.ops.seqmem.multiscale_sequence and its gradient: checks, the split of the batch over threads, and the
// products that give the weights' gradients. The gradient is tied to the operator in seqmem/ops/multiscale.py.
#include "multiscale.h"

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "checks.h"
#include "groups.h"
#include "kernels.h"

namespace seqmem {

namespace baseline {
MultiscaleTable multiscale_table();
}
#if defined(__x86_64__) && !defined(__clang__)
namespace avx2 {
MultiscaleTable multiscale_table();
}
namespace avx512 {
MultiscaleTable multiscale_table();
}
#endif

namespace {

using at::Tensor;

const MultiscaleTable& multiscale_kernels() {
  static const MultiscaleTable chosen = [] {
#if defined(__x86_64__) && !defined(__clang__)
    const std::string instruction_set = kernels().instruction_set;
    if (instruction_set == "avx512") return avx512::multiscale_table();
    if (instruction_set == "avx2") return avx2::multiscale_table();
#endif
    return baseline::multiscale_table();
  }();
  return chosen;
}

template <typename T>
const MultiscaleKernels<T>& kernels_of() {
  if constexpr (std::is_same_v<T, float>) {
    return multiscale_kernels().single;
  } else {
    return multiscale_kernels().twice;
  }
}

// Units of all layers, so that what is counted of them stays within 64 bits.
constexpr int64_t kMostUnits = int64_t(1) << 24;

struct Arguments {
  const char* name;
  Tensor projected, hidden, memory, boundary;
  Maybe lengths, draws;
  Tensor parameters, slope;
  at::IntArrayRef sizes;
  bool top_detector, bias, layer_norm, soft, hard_sigmoid;
  int64_t chunk_steps;  // steps that the way back holds at a time; 0 where there is none
  std::vector<Layer> layers = {};

  int64_t batch() const { return projected.size(0); }
  int64_t steps() const { return projected.size(1); }
  int64_t count() const { return int64_t(layers.size()); }
  int64_t units() const { return layers.back().unit + layers.back().size; }
  bool empty() const { return batch() == 0 || steps() == 0; }
};

// The layers one after the other, and how many parameters they have.
int64_t lay_out(Arguments& a) {
  int64_t unit = 0, place = 0, parameter = 0, most = kMostUnits;
  for (const int64_t size : a.sizes) {
    TORCH_CHECK_VALUE(
        size > 0 && size <= most, a.name, ": sizes must be positive, got ", a.sizes, " (at most ", kMostUnits, " together)");
    most -= size;
  }
  const int64_t count = int64_t(a.sizes.size());
  const auto take = [&](bool wanted, int64_t numbers) {
    const int64_t at = wanted ? parameter : -1;
    parameter += wanted ? numbers : 0;
    return at;
  };
  for (int64_t l = 0; l < count; ++l) {
    const int64_t size = a.sizes[l];
    Layer y{size, l + 1 < count ? a.sizes[l + 1] : 0, l > 0 ? a.sizes[l - 1] : 0, l + 1 < count || a.top_detector, unit, place,
            0, 0, 0, 0, 0};
    y.weight = take(true, y.rows() * y.reads());
    y.bias = take(a.bias, y.rows());
    y.gain = take(a.layer_norm, kMultiscaleGates * size);
    y.memory_gain = take(a.layer_norm, size);
    y.memory_bias = take(a.layer_norm && a.bias, size);
    unit += size;
    place += y.padded();
    a.layers.push_back(y);
  }
  return parameter;
}

void check(Arguments& a) {
  const char* const name = a.name;
  TORCH_CHECK_VALUE(a.projected.dim() == 3, name, ": projected must have shape (B, T, P), got ", a.projected.sizes());
  check_floating(name, "projected", a.projected);
  TORCH_CHECK_VALUE(!a.sizes.empty(), name, ": sizes must name at least one layer");
  const int64_t parameters = lay_out(a), batch = a.batch();
  check_shape(name, "projected", a.projected, a.projected, {batch, a.steps(), a.layers[0].rows()});
  check_shape(name, "hidden", a.hidden, a.projected, {batch, a.units()});
  check_shape(name, "memory", a.memory, a.projected, {batch, a.units()});
  check_shape(name, "boundary", a.boundary, a.projected, {batch, a.count()});
  check_shape(name, "parameters", a.parameters, a.projected, {parameters});
  check_shape(name, "draws", a.draws, a.projected, {a.steps(), batch, a.count()});
  TORCH_CHECK_VALUE(!a.soft || !a.draws, name, ": soft boundaries are not drawn");
  TORCH_CHECK_VALUE(a.slope.numel() == 1, name, ": slope must be one number, got ", a.slope.sizes());
  check_lengths(name, a.lengths, batch);
  if (a.draws) a.draws = a.draws->contiguous();
  for (Tensor* tensor : {&a.projected, &a.hidden, &a.memory, &a.boundary, &a.parameters}) *tensor = tensor->contiguous();
}

struct Results {
  Tensor outputs, boundaries, hidden, memory, boundary, saved;
};

template <typename T>
Multiscale<T> describe(const Arguments& a, const Results& results) {
  Multiscale<T> s{};
  s.layers = a.layers.data();
  s.count = a.count();
  s.units = a.units();
  s.places = a.layers.back().place + a.layers.back().padded();
  s.steps = a.steps();
  s.batch = a.batch();
  s.width = a.layers[0].rows();
  s.soft = a.soft;
  s.hard_sigmoid = a.hard_sigmoid;
  s.slope = T(a.slope.item<double>());
  s.lengths = data<int64_t>(a.lengths);
  s.projected = readable<T>(a.projected);
  s.draws = data<T>(a.draws);
  s.hidden_before = readable<T>(a.hidden);
  s.memory_before = readable<T>(a.memory);
  s.boundary_before = readable<T>(a.boundary);
  s.parameters = readable<T>(a.parameters);
  s.outputs = writable<T>(results.outputs);
  s.boundaries = writable<T>(results.boundaries);
  s.saved = a.chunk_steps > 0 ? writable<T>(results.saved) : nullptr;
  s.kept = kept_numbers(s);
  s.chunk_steps = a.chunk_steps;
  return s;
}

template <typename T>
Tensor packed(Multiscale<T>& s, bool backward, const at::TensorOptions& options) {
  const MultiscaleKernels<T>& kernels = kernels_of<T>();
  const Tensor storage = empty_large({kernels.packed(s, backward)}, options);
  s.packed = writable<T>(storage);
  at::parallel_for(0, s.count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t l = begin; l < end; ++l) kernels.pack(s, backward, l);
  });
  return storage;
}

template <typename T>
void run(const Arguments& a, Results& results) {
  const MultiscaleKernels<T>& kernels = kernels_of<T>();
  Multiscale<T> s = describe<T>(a, results);
  s.hidden_after = writable<T>(results.hidden);
  s.memory_after = writable<T>(results.memory);
  s.boundary_after = writable<T>(results.boundary);
  const Tensor parameters = packed<T>(s, false, a.projected.options());
  const Groups groups(a.batch(), kernels.most_rows);
  const int64_t size = round_up(kernels.workspace(s, groups.most(), false), kMaxLanes);
  const Tensor workspace = at::empty({groups.count, size}, a.projected.options());
  T* const pieces = writable<T>(workspace);
  at::parallel_for(0, groups.count, 1, [&](int64_t begin, int64_t end) {
    [[maybe_unused]] const FlushDenormals flush;
    for (int64_t group = begin; group < end; ++group) {
      kernels.forward(s, groups.first(group), groups.rows(group), pieces + group * size);
    }
  });
}

template <typename T>
int64_t numbers_kept(const Arguments& a) {
  Multiscale<T> s{};
  s.count = a.count();
  s.places = a.layers.back().place + a.layers.back().padded();
  return kept_numbers(s);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> multiscale_sequence(
    const Tensor& projected, const Tensor& hidden, const Tensor& memory, const Tensor& boundary, const Maybe& lengths,
    const Maybe& draws, const Tensor& parameters, const Tensor& slope, at::IntArrayRef sizes, bool top_detector, bool bias,
    bool layer_norm, bool soft, bool hard_sigmoid, int64_t chunk_steps) {
  Arguments a{"seqmem::multiscale_sequence", projected, hidden, memory, boundary, lengths, draws, parameters, slope, sizes,
              top_detector, bias, layer_norm, soft, hard_sigmoid, chunk_steps};
  check(a);
  const at::AutoDispatchBelowADInplaceOrView guard;
  const auto options = a.projected.options();
  Results r;
  r.outputs = empty_large({a.batch(), a.steps(), a.units()}, options);
  r.boundaries = at::empty({a.batch(), a.steps(), a.count()}, options);
  r.saved = empty_large({a.chunk_steps > 0 ? a.steps() : 0, a.batch(), numbers_kept<float>(a)}, options);
  if (a.empty()) {
    r.hidden = a.hidden.clone();
    r.memory = a.memory.clone();
    r.boundary = a.boundary.clone();
  } else {
    r.hidden = at::empty_like(a.hidden);
    r.memory = at::empty_like(a.memory);
    r.boundary = at::empty_like(a.boundary);
    a.projected.scalar_type() == at::kFloat ? run<float>(a, r) : run<double>(a, r);
  }
  return {r.outputs, r.boundaries, r.hidden, r.memory, r.boundary, r.saved};
}

struct Flows {
  Maybe outputs, boundaries, hidden, memory, boundary;
};

struct Gradients {
  Tensor projected, hidden, memory, boundary, parameters;
};

// What one group of rows collects for the weights of one layer.
struct Collection {
  Tensor gradients, reads;
};

// Adds the share of a chunk to the gradient of a layer's weight, of which those of the gates are the first rows.
template <typename T>
void add_products(const Layer& layer, const Collection& collection, const Collected<T>& collected, Tensor weight) {
  weight = weight.narrow(0, 0, kMultiscaleGates * layer.size);
  int64_t row = 0;
  for (int branch = 0; branch < kBranches; row += collected.count[branch++]) {
    const int64_t count = collected.count[branch];
    if (count == 0) continue;
    const Tensor gradients = collection.gradients.narrow(0, row, count).t();
    const auto add = [&](int64_t column, int64_t columns) {
      if (columns > 0) weight.narrow(1, column, columns).addmm_(gradients, collection.reads.narrow(0, row, count).narrow(1, column, columns));
    };
    if (branch == reads_below) {
      add(0, layer.size);
      add(layer.size + layer.above, layer.below);
    } else {
      add(0, layer.size + layer.above + (branch == reads_both ? layer.below : 0));
    }
  }
}

// Adds what the threads summed to the gradients of a layer's parameters.
void add_totals(const Layer& y, const LayerTotals& at, const Tensor& totals, const Tensor& parameters) {
  const auto gates = [&](int64_t start) {
    return totals.narrow(0, start, kMultiscaleGates * y.padded()).view({kMultiscaleGates, y.padded()}).narrow(1, 0, y.size);
  };
  const auto to = [&](int64_t start, int64_t count) { return parameters.narrow(0, start, count); };
  if (y.bias >= 0) to(y.bias, kMultiscaleGates * y.size).view({kMultiscaleGates, y.size}).add_(gates(at.bias));
  if (y.gain >= 0) {
    to(y.gain, kMultiscaleGates * y.size).view({kMultiscaleGates, y.size}).add_(gates(at.gain));
    to(y.memory_gain, y.size).add_(totals.narrow(0, at.memory_gain, y.size));
  }
  if (y.memory_bias >= 0) to(y.memory_bias, y.size).add_(totals.narrow(0, at.memory_bias, y.size));
  if (!y.detects) return;
  int64_t start = y.weight + kMultiscaleGates * y.size * y.reads();
  for (int part = 0; part < kParts; start += part_size(y, part++)) {
    to(start, part_size(y, part)).add_(totals.narrow(0, at.detector[part], part_size(y, part)));
  }
  if (y.bias >= 0) to(y.bias + kMultiscaleGates * y.size, 1).add_(totals.narrow(0, at.detector_bias, 1));
}

template <typename T>
void run_backward(const Arguments& a, const Results& results, const Flows& flows, Gradients& g) {
  const auto options = a.projected.options();
  const MultiscaleKernels<T>& kernels = kernels_of<T>();
  Multiscale<T> s = describe<T>(a, results);
  s.grad_outputs = data<T>(flows.outputs);
  s.grad_boundaries = data<T>(flows.boundaries);
  s.grad_hidden_after = data<T>(flows.hidden);
  s.grad_memory_after = data<T>(flows.memory);
  s.grad_boundary_after = data<T>(flows.boundary);
  s.grad_projected = g.projected.dim() == 3 ? writable<T>(g.projected) : nullptr;
  s.grad_hidden_before = writable<T>(g.hidden);
  s.grad_memory_before = writable<T>(g.memory);
  s.grad_boundary_before = writable<T>(g.boundary);
  const Tensor parameters = packed<T>(s, true, options);
  const Groups groups(a.batch(), kernels.most_rows);
  const int64_t size = round_up(kernels.workspace(s, groups.most(), true), kMaxLanes);
  std::vector<LayerTotals> places;
  for (const Layer& layer : a.layers) places.emplace_back(layer, places.empty() ? 0 : places.back().end);
  const Tensor workspace = empty_large({groups.count, size}, options);
  const Tensor totals = at::zeros({groups.count, places.back().end}, options);
  std::vector<Collection> collections;
  std::vector<Collected<T>> collected;
  for (int64_t group = 0; group < groups.count; ++group) {
    const int64_t most = groups.rows(group) * std::min(a.chunk_steps, a.steps());
    for (const Layer& layer : a.layers) {
      collections.push_back({empty_large({most, kMultiscaleGates * layer.size}, options), empty_large({most, layer.reads()}, options)});
      const Collection& last = collections.back();
      collected.push_back({writable<T>(last.gradients), writable<T>(last.reads), {}});
    }
  }
  T* const pieces = writable<T>(workspace);
  T* const sums = writable<T>(totals);
  for (int64_t chunk = (a.steps() - 1) / a.chunk_steps; chunk >= 0; --chunk) {
    const int64_t first_step = chunk * a.chunk_steps, end_step = std::min(a.steps(), first_step + a.chunk_steps);
    at::parallel_for(0, groups.count, 1, [&](int64_t begin, int64_t end) {
      [[maybe_unused]] const FlushDenormals flush;
      for (int64_t group = begin; group < end; ++group) {
        kernels.backward(
            s, groups.first(group), groups.rows(group), first_step, end_step, pieces + group * size,
            sums + group * places.back().end, collected.data() + group * s.count);
      }
    });
    for (int64_t l = 0; l < s.count; ++l) {
      const Layer& layer = a.layers[l];
      const Tensor weight = g.parameters.narrow(0, layer.weight, layer.rows() * layer.reads()).view({layer.rows(), layer.reads()});
      for (int64_t group = 0; group < groups.count; ++group) {
        add_products(layer, collections[group * s.count + l], collected[group * s.count + l], weight);
      }
    }
  }
  const Tensor total = totals.sum(0);
  for (int64_t l = 0; l < s.count; ++l) add_totals(a.layers[l], places[l], total, g.parameters);
}

std::vector<Tensor> multiscale_sequence_backward(
    const Maybe& grad_outputs, const Maybe& grad_boundaries, const Maybe& grad_hidden, const Maybe& grad_memory,
    const Maybe& grad_boundary, const Tensor& outputs, const Tensor& boundaries, const Tensor& saved, const Tensor& projected,
    const Tensor& hidden, const Tensor& memory, const Tensor& boundary, const Maybe& lengths, const Maybe& draws,
    const Tensor& parameters, const Tensor& slope, at::IntArrayRef sizes, bool top_detector, bool bias, bool layer_norm, bool soft,
    bool hard_sigmoid, int64_t chunk_steps, bool input_gradient) {
  Arguments a{"seqmem::multiscale_sequence_backward", projected, hidden, memory, boundary, lengths, draws, parameters, slope, sizes,
              top_detector, bias, layer_norm, soft, hard_sigmoid, chunk_steps};
  check(a);
  const at::AutoDispatchBelowADInplaceOrView guard;
  TORCH_CHECK_VALUE(a.chunk_steps > 0, a.name, ": chunk_steps must be positive, as in the call that goes back, got ", a.chunk_steps);
  check_shape(a.name, "outputs", outputs, a.projected, {a.batch(), a.steps(), a.units()});
  check_shape(a.name, "boundaries", boundaries, a.projected, {a.batch(), a.steps(), a.count()});
  check_shape(a.name, "saved", saved, a.projected, {a.steps(), a.batch(), numbers_kept<float>(a)});
  const Results results{outputs.contiguous(), boundaries.contiguous(), {}, {}, {}, saved.contiguous()};
  Flows flows{grad_outputs, grad_boundaries, grad_hidden, grad_memory, grad_boundary};
  check_shape(a.name, "the gradient of outputs", flows.outputs, a.projected, outputs.sizes());
  check_shape(a.name, "the gradient of boundaries", flows.boundaries, a.projected, boundaries.sizes());
  check_shape(a.name, "the gradient of hidden", flows.hidden, a.projected, a.hidden.sizes());
  check_shape(a.name, "the gradient of memory", flows.memory, a.projected, a.memory.sizes());
  check_shape(a.name, "the gradient of boundary", flows.boundary, a.projected, a.boundary.sizes());
  for (Maybe* flow : {&flows.outputs, &flows.boundaries, &flows.hidden, &flows.memory, &flows.boundary}) {
    if (*flow) *flow = (*flow)->contiguous();
  }
  Gradients g;
  g.parameters = at::zeros_like(a.parameters);
  g.projected = at::empty(input_gradient ? a.projected.sizes() : at::IntArrayRef({0}), a.projected.options());
  if (a.empty()) {
    g.hidden = flows.hidden ? flows.hidden->clone() : at::zeros_like(a.hidden);
    g.memory = flows.memory ? flows.memory->clone() : at::zeros_like(a.memory);
    g.boundary = flows.boundary ? flows.boundary->clone() : at::zeros_like(a.boundary);
  } else {
    g.hidden = at::empty_like(a.hidden);
    g.memory = at::empty_like(a.memory);
    g.boundary = at::empty_like(a.boundary);
    a.projected.scalar_type() == at::kFloat ? run_backward<float>(a, results, flows, g) : run_backward<double>(a, results, flows, g);
  }
  return {g.projected, g.hidden, g.memory, g.boundary, g.parameters};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(seqmem, library) {
  const std::string given =
      "Tensor projected, Tensor hidden, Tensor memory, Tensor boundary, Tensor? lengths, Tensor? draws, Tensor parameters, "
      "Tensor slope, int[] sizes, bool top_detector, bool bias, bool layer_norm, bool soft, bool hard_sigmoid, int chunk_steps";
  library.def(
      ("multiscale_sequence(" + given +
       ") -> (Tensor outputs, Tensor boundaries, Tensor hidden_after, Tensor memory_after, Tensor boundary_after, Tensor saved)")
          .c_str());
  library.def(
      ("multiscale_sequence_backward(Tensor? grad_outputs, Tensor? grad_boundaries, Tensor? grad_hidden, Tensor? grad_memory, "
       "Tensor? grad_boundary, Tensor outputs, Tensor boundaries, Tensor saved, " +
       given + ", bool input_gradient) -> Tensor[]")
          .c_str());
}

TORCH_LIBRARY_IMPL(seqmem, CPU, library) {
  library.impl("multiscale_sequence", multiscale_sequence);
  library.impl("multiscale_sequence_backward", multiscale_sequence_backward);
}

}  // namespace seqmem
