// The operator torch.ops.seqmem.multiscale_sequence and its backward operator: checks, the loops run by several threads, and
// the products of the weight gradients. seqmem/ops/compiled_sequence.py registers the gradient.
#include "multiscale.h"

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
#include "denormals.h"
#include "kernels.h"
#include "row_groups.h"

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
  static const MultiscaleTable selected = [] {
#if defined(__x86_64__) && !defined(__clang__)
    const std::string instruction_set = kernels().instruction_set;
    if (instruction_set == "avx512") return avx512::multiscale_table();
    if (instruction_set == "avx2") return avx2::multiscale_table();
#endif
    return baseline::multiscale_table();
  }();
  return selected;
}

template <typename T>
const MultiscaleKernels<T>& kernels_of() {
  if constexpr (std::is_same_v<T, float>) {
    return multiscale_kernels().f32;
  } else {
    return multiscale_kernels().f64;
  }
}

// Most units of all layers, so that products of sizes fit into 64 bits.
constexpr int64_t kMaxUnits = int64_t(1) << 24;

struct Arguments {
  const char* name;
  Tensor projected, hidden, memory, boundary;
  OptionalTensor lengths, draws;
  Tensor parameters, slope;
  at::IntArrayRef sizes;
  bool top_detector, bias, layer_norm, soft, hard_sigmoid;
  int64_t chunk_steps;  // steps that backward processes at a time; 0 without gradients
  std::vector<Layer> layers = {};

  int64_t batch() const { return projected.size(0); }
  int64_t steps() const { return projected.size(1); }
  int64_t count() const { return int64_t(layers.size()); }
  int64_t units() const { return layers.back().unit + layers.back().size; }
  bool empty() const { return batch() == 0 || steps() == 0; }
};

// Computes the offsets of all layers; returns the number of parameters.
int64_t compute_layers(Arguments& a) {
  int64_t unit = 0, padded_unit = 0, parameter = 0, remaining = kMaxUnits;
  for (const int64_t size : a.sizes) {
    TORCH_CHECK_VALUE(
        size > 0 && size <= remaining, a.name, ": sizes: got ", a.sizes, ", expected each above 0 and at most ", kMaxUnits,
        " together");
    remaining -= size;
  }
  const int64_t count = int64_t(a.sizes.size());
  const auto allocate = [&](bool exists, int64_t numbers) {
    const int64_t offset = exists ? parameter : -1;
    parameter += exists ? numbers : 0;
    return offset;
  };
  for (int64_t l = 0; l < count; ++l) {
    const int64_t size = a.sizes[l];
    Layer y{
        size,
        l + 1 < count ? a.sizes[l + 1] : 0,
        l > 0 ? a.sizes[l - 1] : 0,
        l + 1 < count || a.top_detector,
        unit,
        padded_unit,
        0,
        0,
        0,
        0,
        0};
    y.weight = allocate(true, y.rows() * y.input_size());
    y.bias = allocate(a.bias, y.rows());
    y.gain = allocate(a.layer_norm, kMultiscaleGates * size);
    y.memory_gain = allocate(a.layer_norm, size);
    y.memory_bias = allocate(a.layer_norm && a.bias, size);
    unit += size;
    padded_unit += y.padded();
    a.layers.push_back(y);
  }
  return parameter;
}

void check(Arguments& a) {
  const char* const name = a.name;
  TORCH_CHECK_VALUE(a.projected.dim() == 3, name, ": projected: got shape ", a.projected.sizes(), ", expected (B, T, P)");
  check_floating(name, "projected", a.projected);
  TORCH_CHECK_VALUE(!a.sizes.empty(), name, ": sizes: got no layer, expected at least one");
  const int64_t parameters = compute_layers(a), batch = a.batch();
  check_tensor(name, "projected", a.projected, a.projected, {batch, a.steps(), a.layers[0].rows()});
  check_tensor(name, "hidden", a.hidden, a.projected, {batch, a.units()});
  check_tensor(name, "memory", a.memory, a.projected, {batch, a.units()});
  check_tensor(name, "boundary", a.boundary, a.projected, {batch, a.count()});
  check_tensor(name, "parameters", a.parameters, a.projected, {parameters});
  check_tensor(name, "draws", a.draws, a.projected, {a.steps(), batch, a.count()});
  TORCH_CHECK_VALUE(!a.soft || !a.draws, name, ": draws: got a tensor, expected None with soft boundaries");
  TORCH_CHECK_VALUE(a.slope.numel() == 1, name, ": slope: got shape ", a.slope.sizes(), ", expected one number");
  check_lengths(name, a.lengths, batch, a.steps());
  if (a.draws) a.draws = a.draws->contiguous();
  for (Tensor* tensor : {&a.projected, &a.hidden, &a.memory, &a.boundary, &a.parameters}) *tensor = tensor->contiguous();
}

struct Results {
  Tensor outputs, boundaries, hidden, memory, boundary, saved;
};

template <typename T>
Multiscale<T> kernel_arguments(const Arguments& a, const Results& results) {
  Multiscale<T> s{};
  s.layers = a.layers.data();
  s.count = a.count();
  s.units = a.units();
  s.padded_units = a.layers.back().padded_unit + a.layers.back().padded();
  s.steps = a.steps();
  s.batch = a.batch();
  s.width = a.layers[0].rows();
  s.soft = a.soft;
  s.hard_sigmoid = a.hard_sigmoid;
  s.slope = T(a.slope.item<double>());
  s.lengths = optional_data<int64_t>(a.lengths);
  s.projected = const_data<T>(a.projected);
  s.draws = optional_data<T>(a.draws);
  s.hidden_before = const_data<T>(a.hidden);
  s.memory_before = const_data<T>(a.memory);
  s.boundary_before = const_data<T>(a.boundary);
  s.parameters = const_data<T>(a.parameters);
  s.outputs = mutable_data<T>(results.outputs);
  s.boundaries = mutable_data<T>(results.boundaries);
  s.saved = a.chunk_steps > 0 ? mutable_data<T>(results.saved) : nullptr;
  s.saved_size = saved_size(s);
  s.chunk_steps = a.chunk_steps;
  return s;
}

template <typename T>
Tensor pack_parameters(Multiscale<T>& s, bool backward, const at::TensorOptions& options) {
  const MultiscaleKernels<T>& kernels = kernels_of<T>();
  const Tensor storage = empty_large({kernels.packed(s, backward)}, options);
  s.packed = mutable_data<T>(storage);
  parallel_for(0, s.count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t l = begin; l < end; ++l) kernels.pack(s, backward, l);
  });
  return storage;
}

template <typename T>
void run_forward(const Arguments& a, Results& results) {
  const MultiscaleKernels<T>& kernels = kernels_of<T>();
  Multiscale<T> s = kernel_arguments<T>(a, results);
  s.hidden_after = mutable_data<T>(results.hidden);
  s.memory_after = mutable_data<T>(results.memory);
  s.boundary_after = mutable_data<T>(results.boundary);
  const Tensor parameters = pack_parameters<T>(s, false, a.projected.options());
  const RowGroups groups(a.batch(), kernels.group_rows);
  const int64_t size = round_up(kernels.workspace(s, groups.max_rows(), false), kMaxLanes);
  const Tensor workspace = at::empty({groups.count, size}, a.projected.options());
  T* const workspace_data = mutable_data<T>(workspace);
  parallel_for(0, groups.count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) {
      kernels.forward(s, groups.first_row(group), groups.rows(group), workspace_data + group * size);
    }
  });
}

template <typename T>
int64_t saved_size(const Arguments& a) {
  Multiscale<T> s{};
  s.count = a.count();
  s.padded_units = a.layers.back().padded_unit + a.layers.back().padded();
  return saved_size(s);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> multiscale_sequence(
    const Tensor& projected, const Tensor& hidden, const Tensor& memory, const Tensor& boundary, const OptionalTensor& lengths,
    const OptionalTensor& draws, const Tensor& parameters, const Tensor& slope, at::IntArrayRef sizes, bool top_detector,
    bool bias, bool layer_norm, bool soft, bool hard_sigmoid, int64_t chunk_steps) {
  Arguments a{
      "seqmem::multiscale_sequence",
      projected,
      hidden,
      memory,
      boundary,
      lengths,
      draws,
      parameters,
      slope,
      sizes,
      top_detector,
      bias,
      layer_norm,
      soft,
      hard_sigmoid,
      chunk_steps};
  check(a);
  const at::AutoDispatchBelowADInplaceOrView guard;
  const auto options = a.projected.options();
  Results r;
  r.outputs = empty_large({a.batch(), a.steps(), a.units()}, options);
  r.boundaries = at::empty({a.batch(), a.steps(), a.count()}, options);
  r.saved = empty_large({a.chunk_steps > 0 ? a.steps() : 0, a.batch(), saved_size<float>(a)}, options);
  if (a.empty()) {
    r.hidden = a.hidden.clone();
    r.memory = a.memory.clone();
    r.boundary = a.boundary.clone();
  } else {
    r.hidden = at::empty_like(a.hidden);
    r.memory = at::empty_like(a.memory);
    r.boundary = at::empty_like(a.boundary);
    a.projected.scalar_type() == at::kFloat ? run_forward<float>(a, r) : run_forward<double>(a, r);
  }
  // Rows without steps are copies.
  return {r.outputs, r.boundaries, flushed(r.hidden), flushed(r.memory), flushed(r.boundary), r.saved};
}

struct OutputGradients {
  OptionalTensor outputs, boundaries, hidden, memory, boundary;
};

struct Gradients {
  Tensor projected, hidden, memory, boundary, parameters;
};

// Factors of the gradients of one layer's gate weights for one group of rows, see GradientOperands.
struct Factors {
  Tensor gradients, inputs;
};

// Adds the products of a chunk to the gradient of the gates' weights, the first rows of a layer's weight.
template <typename T>
void add_products(const Layer& layer, const Factors& factors, const GradientOperands<T>& operands, Tensor weight) {
  weight = weight.narrow(0, 0, kMultiscaleGates * layer.size);
  int64_t row = 0;
  for (int branch = 0; branch < kBranches; row += operands.count[branch++]) {
    const int64_t count = operands.count[branch];
    if (count == 0) continue;
    const Tensor gradients = factors.gradients.narrow(0, row, count).t(), inputs = factors.inputs.narrow(0, row, count);
    const auto add = [&](int64_t column, int64_t columns) {
      if (columns > 0) weight.narrow(1, column, columns).addmm_(gradients, inputs.narrow(1, column, columns));
    };
    if (branch == below_only) {
      add(0, layer.size);
      add(layer.size + layer.above, layer.below);
    } else {
      add(0, layer.size + layer.above + (branch == above_and_below ? layer.below : 0));
    }
  }
}

// Adds the sum over the threads to the gradients of a layer's parameters.
void add_layer_gradients(const Layer& y, const LayerGradients& layout, const Tensor& sums, const Tensor& parameters) {
  const auto gates = [&](int64_t start) {
    return sums.narrow(0, start, kMultiscaleGates * y.padded()).view({kMultiscaleGates, y.padded()}).narrow(1, 0, y.size);
  };
  const auto to = [&](int64_t start, int64_t count) { return parameters.narrow(0, start, count); };
  if (y.bias >= 0) to(y.bias, kMultiscaleGates * y.size).view({kMultiscaleGates, y.size}).add_(gates(layout.bias));
  if (y.gain >= 0) {
    to(y.gain, kMultiscaleGates * y.size).view({kMultiscaleGates, y.size}).add_(gates(layout.gain));
    to(y.memory_gain, y.size).add_(sums.narrow(0, layout.memory_gain, y.size));
  }
  if (y.memory_bias >= 0) to(y.memory_bias, y.size).add_(sums.narrow(0, layout.memory_bias, y.size));
  if (!y.has_detector) return;
  int64_t start = y.weight + kMultiscaleGates * y.size * y.input_size();
  for (int part = 0; part < kParts; start += part_size(y, part++)) {
    to(start, part_size(y, part)).add_(sums.narrow(0, layout.detector[part], part_size(y, part)));
  }
  if (y.bias >= 0) to(y.bias + kMultiscaleGates * y.size, 1).add_(sums.narrow(0, layout.detector_bias, 1));
}

template <typename T>
void run_backward(const Arguments& a, const Results& results, const OutputGradients& grads, Gradients& g) {
  const auto options = a.projected.options();
  const MultiscaleKernels<T>& kernels = kernels_of<T>();
  Multiscale<T> s = kernel_arguments<T>(a, results);
  s.grad_outputs = optional_data<T>(grads.outputs);
  s.grad_boundaries = optional_data<T>(grads.boundaries);
  s.grad_hidden_after = optional_data<T>(grads.hidden);
  s.grad_memory_after = optional_data<T>(grads.memory);
  s.grad_boundary_after = optional_data<T>(grads.boundary);
  s.grad_projected = g.projected.dim() == 3 ? mutable_data<T>(g.projected) : nullptr;
  s.grad_hidden_before = mutable_data<T>(g.hidden);
  s.grad_memory_before = mutable_data<T>(g.memory);
  s.grad_boundary_before = mutable_data<T>(g.boundary);
  const Tensor parameters = pack_parameters<T>(s, true, options);
  const RowGroups groups(a.batch(), kernels.group_rows);
  const int64_t size = round_up(kernels.workspace(s, groups.max_rows(), true), kMaxLanes);
  std::vector<LayerGradients> layouts;
  for (const Layer& layer : a.layers) layouts.emplace_back(layer, layouts.empty() ? 0 : layouts.back().end);
  const Tensor workspace = empty_large({groups.count, size}, options);
  const Tensor weight_grads = at::zeros({groups.count, layouts.back().end}, options);
  std::vector<Factors> factors;
  std::vector<GradientOperands<T>> operands;
  for (int64_t group = 0; group < groups.count; ++group) {
    const int64_t rows = groups.rows(group) * std::min(a.chunk_steps, a.steps());
    for (const Layer& layer : a.layers) {
      factors.push_back(
          {empty_large({rows, kMultiscaleGates * layer.size}, options), empty_large({rows, layer.input_size()}, options)});
      operands.push_back({mutable_data<T>(factors.back().gradients), mutable_data<T>(factors.back().inputs), {}});
    }
  }
  T* const workspace_data = mutable_data<T>(workspace);
  T* const weight_grads_data = mutable_data<T>(weight_grads);
  for (int64_t chunk = (a.steps() - 1) / a.chunk_steps; chunk >= 0; --chunk) {
    const int64_t first_step = chunk * a.chunk_steps, end_step = std::min(a.steps(), first_step + a.chunk_steps);
    parallel_for(0, groups.count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t group = begin; group < end; ++group) {
        kernels.backward(
            s, groups.first_row(group), groups.rows(group), first_step, end_step, workspace_data + group * size,
            weight_grads_data + group * layouts.back().end, operands.data() + group * s.count);
      }
    });
    for (int64_t l = 0; l < s.count; ++l) {
      const Layer& layer = a.layers[l];
      const Tensor weight =
          g.parameters.narrow(0, layer.weight, layer.rows() * layer.input_size()).view({layer.rows(), layer.input_size()});
      for (int64_t group = 0; group < groups.count; ++group) {
        add_products(layer, factors[group * s.count + l], operands[group * s.count + l], weight);
      }
    }
  }
  const Tensor sums = weight_grads.sum(0);
  for (int64_t l = 0; l < s.count; ++l) add_layer_gradients(a.layers[l], layouts[l], sums, g.parameters);
  g.parameters = flushed(g.parameters);
}

std::vector<Tensor> multiscale_sequence_backward(
    const OptionalTensor& grad_outputs, const OptionalTensor& grad_boundaries, const OptionalTensor& grad_hidden,
    const OptionalTensor& grad_memory, const OptionalTensor& grad_boundary, const Tensor& outputs, const Tensor& boundaries,
    const Tensor& saved, const Tensor& projected, const Tensor& hidden, const Tensor& memory, const Tensor& boundary,
    const OptionalTensor& lengths, const OptionalTensor& draws, const Tensor& parameters, const Tensor& slope,
    at::IntArrayRef sizes, bool top_detector, bool bias, bool layer_norm, bool soft, bool hard_sigmoid, int64_t chunk_steps,
    bool input_gradient) {
  Arguments a{
      "seqmem::multiscale_sequence_backward",
      projected,
      hidden,
      memory,
      boundary,
      lengths,
      draws,
      parameters,
      slope,
      sizes,
      top_detector,
      bias,
      layer_norm,
      soft,
      hard_sigmoid,
      chunk_steps};
  check(a);
  const at::AutoDispatchBelowADInplaceOrView guard;
  TORCH_CHECK_VALUE(
      a.chunk_steps > 0, a.name, ": chunk_steps: got ", a.chunk_steps, ", expected that of the forward call, above 0");
  check_tensor(a.name, "outputs", outputs, a.projected, {a.batch(), a.steps(), a.units()});
  check_tensor(a.name, "boundaries", boundaries, a.projected, {a.batch(), a.steps(), a.count()});
  check_tensor(a.name, "saved", saved, a.projected, {a.steps(), a.batch(), saved_size<float>(a)});
  const Results results{outputs.contiguous(), boundaries.contiguous(), {}, {}, {}, saved.contiguous()};
  OutputGradients grads{grad_outputs, grad_boundaries, grad_hidden, grad_memory, grad_boundary};
  check_tensor(a.name, "grad_outputs", grads.outputs, a.projected, outputs.sizes());
  check_tensor(a.name, "grad_boundaries", grads.boundaries, a.projected, boundaries.sizes());
  check_tensor(a.name, "grad_hidden", grads.hidden, a.projected, a.hidden.sizes());
  check_tensor(a.name, "grad_memory", grads.memory, a.projected, a.memory.sizes());
  check_tensor(a.name, "grad_boundary", grads.boundary, a.projected, a.boundary.sizes());
  for (OptionalTensor* grad : {&grads.outputs, &grads.boundaries, &grads.hidden, &grads.memory, &grads.boundary}) {
    if (*grad) *grad = (*grad)->contiguous();
  }
  Gradients g;
  g.parameters = at::zeros_like(a.parameters);
  g.projected = at::empty(input_gradient ? a.projected.sizes() : at::IntArrayRef({0}), a.projected.options());
  if (a.empty()) {
    g.hidden = grads.hidden ? grads.hidden->clone() : at::zeros_like(a.hidden);
    g.memory = grads.memory ? grads.memory->clone() : at::zeros_like(a.memory);
    g.boundary = grads.boundary ? grads.boundary->clone() : at::zeros_like(a.boundary);
  } else {
    g.hidden = at::empty_like(a.hidden);
    g.memory = at::empty_like(a.memory);
    g.boundary = at::empty_like(a.boundary);
    const bool is_float = a.projected.scalar_type() == at::kFloat;
    is_float ? run_backward<float>(a, results, grads, g) : run_backward<double>(a, results, grads, g);
  }
  return {g.projected, flushed(g.hidden), flushed(g.memory), flushed(g.boundary), g.parameters};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(seqmem, library) {
  const std::string arguments =
      "Tensor projected, Tensor hidden, Tensor memory, Tensor boundary, Tensor? lengths, Tensor? draws, Tensor parameters, "
      "Tensor slope, int[] sizes, bool top_detector, bool bias, bool layer_norm, bool soft, bool hard_sigmoid, int chunk_steps";
  library.def(("multiscale_sequence(" + arguments +
               ") -> (Tensor outputs, Tensor boundaries, Tensor hidden_after, Tensor memory_after, Tensor boundary_after, "
               "Tensor saved)")
                  .c_str());
  library.def(
      ("multiscale_sequence_backward(Tensor? grad_outputs, Tensor? grad_boundaries, Tensor? grad_hidden, Tensor? grad_memory, "
       "Tensor? grad_boundary, Tensor outputs, Tensor boundaries, Tensor saved, " +
       arguments + ", bool input_gradient) -> Tensor[]")
          .c_str());
}

TORCH_LIBRARY_IMPL(seqmem, CPU, library) {
  library.impl("multiscale_sequence", multiscale_sequence);
  library.impl("multiscale_sequence_backward", multiscale_sequence_backward);
}

}  // namespace seqmem
