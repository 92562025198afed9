// The operator torch.ops.seqmem.diagonal_scan and its backward operator, and the choice of the loops for this processor.
// seqmem/ops/diagonal_scan.py registers the gradient.
#include "scan.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <string>
#include <tuple>
#include <vector>

#include "kernels.h"
#include "scan_run.h"

namespace seqmem {

namespace baseline {
ScanTable scan_table();
}
#if defined(__x86_64__) && !defined(__clang__)
namespace avx2 {
ScanTable scan_table();
}
namespace avx512 {
ScanTable scan_table();
}
#endif

const ScanTable& scan_kernels() {
  static const ScanTable selected = [] {
#if defined(__x86_64__) && !defined(__clang__)
    const std::string instruction_set = kernels().instruction_set;
    if (instruction_set == "avx512") return avx512::scan_table();
    if (instruction_set == "avx2") return avx2::scan_table();
#endif
    return baseline::scan_table();
  }();
  return selected;
}

namespace {

using at::Tensor;

struct Arguments {
  const char* name;
  Tensor a, b;
  OptionalTensor initial, lengths;
  bool reverse, pairs = false, varying = false;
  std::vector<int64_t> state = {};  // shape of the state

  int64_t steps() const { return b.size(1); }
};

void check(Arguments& s) {
  s.pairs = s.b.dim() == 4;
  TORCH_CHECK_VALUE(
      s.b.dim() == 3 || (s.pairs && s.b.size(3) == 2), s.name, ": b: got shape ", s.b.sizes(),
      ", expected (B, T, N) or (B, T, N, 2)");
  check_floating(s.name, "b", s.b);
  check_sizes(s.name, s.b);
  s.varying = s.a.dim() == s.b.dim();
  check_tensor(s.name, "a", s.a, s.b, s.varying ? s.b.sizes() : s.b.sizes().slice(2));
  s.state = s.b.sizes().vec();
  s.state.erase(s.state.begin() + 1);
  check_tensor(s.name, "initial", s.initial, s.b, s.state);
  check_lengths(s.name, s.lengths, s.b.size(0), s.steps());
  s.a = s.a.contiguous();
  s.b = s.b.contiguous();
  s.initial = contiguous(s.initial);
}

template <typename T>
DiagonalScan<T> loop_arguments(const Arguments& s, const Tensor& h) {
  DiagonalScan<T> scan{};
  scan.sizes = scan_sizes(h, s.lengths);
  scan.pairs = s.pairs;
  scan.varying = s.varying;
  scan.reverse = s.reverse;
  scan.a = const_data<T>(s.a);
  scan.initial = optional_data<T>(s.initial);
  return scan;
}

template <typename T>
void forward(const Arguments& s, const Tensor& h, const Tensor& final) {
  DiagonalScan<T> scan = loop_arguments<T>(s, h);
  scan.b = const_data<T>(s.b);
  scan.h = mutable_data<T>(h);
  scan.final = mutable_data<T>(final);
  run_scan<T>(scan_kernels_of<T>().scan, scan);
}

std::tuple<Tensor, Tensor> diagonal_scan(
    const Tensor& a, const Tensor& b, const OptionalTensor& initial, const OptionalTensor& lengths, bool reverse) {
  Arguments s{"seqmem::diagonal_scan", a, b, initial, lengths, reverse};
  check(s);
  const at::AutoDispatchBelowADInplaceOrView guard;
  const auto options = s.b.options();
  const Tensor h = empty_large(s.b.sizes(), options);
  if (s.steps() == 0) return {h, kept_state(s.initial, s.state, options)};
  const Tensor final = at::empty(s.state, options);
  s.b.scalar_type() == at::kFloat ? forward<float>(s, h, final) : forward<double>(s, h, final);
  return {h, flushed(final)};  // the state of a row without steps is a copy
}

struct Gradients {
  OptionalTensor h, final;  // given
  Tensor a, b, initial;
};

template <typename T>
void backward(const Arguments& s, const Tensor& h, Gradients& grads, bool a_gradient) {
  DiagonalScan<T> scan = loop_arguments<T>(s, grads.b);
  const auto options = s.a.options();
  Tensor rows;
  if (a_gradient && s.varying) {
    grads.a = empty_large(s.a.sizes(), options);
    scan.grad_a = mutable_data<T>(grads.a);
  } else if (a_gradient) {
    rows = at::empty({scan.sizes.batch, s.a.numel()}, options.dtype(at::kDouble));
    scan.grad_row = mutable_data<double>(rows);
  }
  scan.states = const_data<T>(h);
  scan.grad_h = optional_data<T>(grads.h);
  scan.grad_final = optional_data<T>(grads.final);
  scan.grad_b = mutable_data<T>(grads.b);
  scan.grad_initial = mutable_data<T>(grads.initial);
  run_scan<T>(scan_kernels_of<T>().scan_backward, scan);
  if (rows.defined()) grads.a = sum_of_rows<T>(rows, s.a.sizes(), options);
}

std::vector<Tensor> diagonal_scan_backward(
    const OptionalTensor& grad_h, const OptionalTensor& grad_final, const Tensor& a, const Tensor& h,
    const OptionalTensor& initial, const OptionalTensor& lengths, bool reverse, bool a_gradient) {
  Arguments s{"seqmem::diagonal_scan_backward", a, h, initial, lengths, reverse};
  check(s);
  check_tensor(s.name, "grad_h", grad_h, s.b, s.b.sizes());
  check_tensor(s.name, "grad_final", grad_final, s.b, s.state);
  const at::AutoDispatchBelowADInplaceOrView guard;
  const auto options = s.b.options();
  Gradients grads{contiguous(grad_h), contiguous(grad_final), {}, empty_large(s.b.sizes(), options), {}};
  if (s.steps() == 0) {
    grads.a = at::zeros(a_gradient ? s.a.sizes() : at::IntArrayRef({0}), options);
    grads.initial = kept_state(grads.final, s.state, options);
  } else {
    grads.a = at::empty({0}, options);
    grads.initial = at::empty(s.state, options);
    s.b.scalar_type() == at::kFloat ? backward<float>(s, s.b, grads, a_gradient) : backward<double>(s, s.b, grads, a_gradient);
  }
  return {grads.a, grads.b, flushed(grads.initial)};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(seqmem, library) {
  library.def("diagonal_scan(Tensor a, Tensor b, Tensor? initial, Tensor? lengths, bool reverse) -> (Tensor h, Tensor final)");
  library.def(
      "diagonal_scan_backward(Tensor? grad_h, Tensor? grad_final, Tensor a, Tensor h, Tensor? initial, Tensor? lengths, bool "
      "reverse, bool a_gradient) -> Tensor[]");
}

TORCH_LIBRARY_IMPL(seqmem, CPU, library) {
  library.impl("diagonal_scan", diagonal_scan);
  library.impl("diagonal_scan_backward", diagonal_scan_backward);
}

}  // namespace seqmem
