// Loops of the diagonal scan. Backward: g_t = dh_t + conj(a_{t+1}) g_{t+1}, db_t = g_t and da_t = g_t conj(h_{t-1}).
#pragma once

#include <cstdint>

#include "scan.h"
#include "scan_columns.h"
#include "vector.h"

namespace seqmem::SEQMEM_ISA {

template <typename T, bool pairs, bool is_partial>
static void run_scan(const DiagonalScan<T>& s, const ScanRange& range, T* state) {
  const int64_t width = s.sizes.width, length = s.sizes.length(range.row), sequence = range.row * s.sizes.steps * width;
  const ScanColumns<T, is_partial> columns{range.count()};
  const int64_t a_step = s.varying ? width : 0;
  const T* const a = s.a + (s.varying ? sequence : 0) + range.begin;
  const T* const b = s.b + sequence + range.begin;
  T* const h = s.h + sequence + range.begin;
  const int64_t row = range.row * width + range.begin;
  const bool streams = s.sizes.streams;
  columns.fill(state, s.initial == nullptr ? nullptr : s.initial + row);
  for (int64_t step = 0; step < length; ++step) {
    const int64_t t = s.reverse ? length - 1 - step : step;
    columns.each(!s.reverse, [&](int64_t k, int64_t slot) {
      const Vector<T> factor = columns.read(a + t * a_step + k), term = columns.read(b + t * width + k);
      const Vector<T> after = multiply_add<T, pairs>(factor, load<T>(state + slot), term);
      store<T>(state + slot, after);
      columns.write(h + t * width + k, after, streams);
    });
  }
  columns.copy(s.final + row, state);
  clear_steps<T>(h, width, length, s.sizes.steps, range.count());
  finish_streams();
}

template <typename T, bool pairs, bool is_partial>
static void run_scan_backward(const DiagonalScan<T>& s, const ScanRange& range, T* workspace) {
  const int64_t width = s.sizes.width, length = s.sizes.length(range.row), sequence = range.row * s.sizes.steps * width;
  const ScanColumns<T, is_partial> columns{range.count()};
  const int64_t a_step = s.varying ? width : 0, grad_step = s.grad_h == nullptr ? 0 : width;
  const int64_t size = columns.vectors() * kLanes<T>, row = range.row * width + range.begin;
  T *const carried = workspace, *const sums = carried + size, *const before = sums + size;  // before the first step
  T* const zeros = before + size;
  const T* const a = s.a + (s.varying ? sequence : 0) + range.begin;
  const T* const h = s.states + sequence + range.begin;
  const T* const grad_h = s.grad_h == nullptr ? zeros : s.grad_h + sequence + range.begin;
  T* const grad_a = s.varying && s.grad_a != nullptr ? s.grad_a + sequence + range.begin : nullptr;
  T* const grad_b = s.grad_b + sequence + range.begin;
  double* const grad_row = s.grad_row == nullptr ? nullptr : s.grad_row + row;
  const bool streams = s.sizes.streams;
  columns.fill(carried, s.grad_final == nullptr ? nullptr : s.grad_final + row);
  columns.fill(sums, nullptr);
  columns.fill(zeros, nullptr);
  for (int64_t k = 0; k < range.count(); ++k) before[k] = s.initial == nullptr ? T(0) : s.initial[row + k];
  if (grad_row != nullptr) columns.add_up(grad_row, sums, true);
  for (int64_t step = length - 1; step >= 0; --step) {
    const int64_t t = s.reverse ? length - 1 - step : step;
    const T* const previous = step == 0 ? before : h + (s.reverse ? t + 1 : t - 1) * width;
    columns.each(s.reverse, [&](int64_t k, int64_t slot) {
      const Vector<T> g = load<T>(carried + slot) + columns.read(grad_h + t * grad_step + k);
      columns.write(grad_b + t * width + k, g, streams);
      if (grad_a != nullptr) {
        columns.write(grad_a + t * width + k, multiply_conjugate<T, pairs>(columns.read(previous + k), g), streams);
      } else if (grad_row != nullptr) {
        const Vector<T> product = multiply_conjugate<T, pairs>(columns.read(previous + k), g);
        store<T>(sums + slot, load<T>(sums + slot) + product);
      }
      store<T>(carried + slot, multiply_conjugate<T, pairs>(columns.read(a + t * a_step + k), g));
    });
    if (grad_row != nullptr && step % kSummedSteps == 0) columns.add_up(grad_row, sums, false);
  }
  columns.copy(s.grad_initial + row, carried);
  clear_steps<T>(grad_b, width, length, s.sizes.steps, range.count());
  if (grad_a != nullptr) clear_steps<T>(grad_a, width, length, s.sizes.steps, range.count());
  finish_streams();
}

template <typename T, bool pairs>
static void scan_of(const DiagonalScan<T>& s, const ScanRange& range, T* workspace) {
  if (range.count() < kLanes<T>) {
    run_scan<T, pairs, true>(s, range, workspace);
  } else {
    run_scan<T, pairs, false>(s, range, workspace);
  }
}

template <typename T>
static void scan_forward(const DiagonalScan<T>& s, const ScanRange& range, T* workspace) {
  s.pairs ? scan_of<T, true>(s, range, workspace) : scan_of<T, false>(s, range, workspace);
}

template <typename T, bool pairs>
static void scan_backward_of(const DiagonalScan<T>& s, const ScanRange& range, T* workspace) {
  if (range.count() < kLanes<T>) {
    run_scan_backward<T, pairs, true>(s, range, workspace);
  } else {
    run_scan_backward<T, pairs, false>(s, range, workspace);
  }
}

template <typename T>
static void scan_backward(const DiagonalScan<T>& s, const ScanRange& range, T* workspace) {
  s.pairs ? scan_backward_of<T, true>(s, range, workspace) : scan_backward_of<T, false>(s, range, workspace);
}

}  // namespace seqmem::SEQMEM_ISA
