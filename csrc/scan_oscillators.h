// Loops of forced oscillators: w = y + lead z, z' = z + gain r with r = u - stiffness w, and y' = y + step z'.
//
// Increments of the state, instead of products of a matrix with it, keep the frequency and the damping of slow oscillators.
#pragma once

#include <cstdint>

#include "scan.h"
#include "scan_columns.h"
#include "vector.h"

namespace seqmem::SEQMEM_ISA {

template <typename T, bool is_partial>
static void run_oscillators(const Oscillators<T>& s, const ScanRange& range, T* workspace) {
  const int64_t width = s.sizes.width, steps = s.sizes.steps, length = s.sizes.length(range.row);
  const int64_t sequence = range.row * steps * width + range.begin, row = 2 * range.row * width + range.begin;
  const ScanColumns<T, is_partial> columns{range.count()};
  T *const velocity = workspace, *const position = velocity + columns.vectors() * kLanes<T>;
  const T *const driven = s.driven + sequence, *const coefficients = s.coefficients + range.begin;
  T* const positions = s.positions + sequence;
  T* const velocities = s.velocities == nullptr ? nullptr : s.velocities + sequence;
  const bool streams = s.sizes.streams;
  columns.fill(velocity, s.initial == nullptr ? nullptr : s.initial + row);
  columns.fill(position, s.initial == nullptr ? nullptr : s.initial + row + width);
  for (int64_t t = 0; t < length; ++t) {
    columns.each(true, [&](int64_t k, int64_t slot) {
      const auto coefficient = [&](Coefficient kind) { return columns.read(coefficients + kind * width + k); };
      const Vector<T> z = load<T>(velocity + slot), y = load<T>(position + slot);
      const Vector<T> force = columns.read(driven + t * width + k) - coefficient(kStiffness) * (y + coefficient(kLead) * z);
      const Vector<T> new_z = z + coefficient(kGain) * force, new_y = y + coefficient(kStep) * new_z;
      store<T>(velocity + slot, new_z);
      store<T>(position + slot, new_y);
      columns.write(positions + t * width + k, new_y, streams);
      if (velocities != nullptr) columns.write(velocities + t * width + k, new_z, streams);
    });
  }
  columns.copy(s.final + row, velocity);
  columns.copy(s.final + row + width, position);
  clear_steps<T>(positions, width, length, steps, range.count());
  if (velocities != nullptr) clear_steps<T>(velocities, width, length, steps, range.count());
  finish_streams();
}

// Vectors of a range, for each coefficient.
template <typename T, bool is_partial>
struct CoefficientSums {
  ScanColumns<T, is_partial> columns;
  T* buffer[kCoefficients];

  SEQMEM_INLINE void add(T* to, const Vector<T>& product) { store<T>(to, load<T>(to) + product); }

  void add_up(double* sums, int64_t width, bool sets) const {
    for (int kind = 0; kind < kCoefficients; ++kind) columns.add_up(sums + kind * width, buffer[kind], sets);
  }
};

template <typename T, bool is_partial>
static void run_oscillators_backward(const Oscillators<T>& s, const ScanRange& range, T* workspace) {
  const int64_t width = s.sizes.width, steps = s.sizes.steps, length = s.sizes.length(range.row);
  const int64_t sequence = range.row * steps * width + range.begin, row = 2 * range.row * width + range.begin;
  const ScanColumns<T, is_partial> columns{range.count()};
  const int64_t size = columns.vectors() * kLanes<T>, grad_step = s.grad_positions == nullptr ? 0 : width;
  T *const grad_z = workspace, *const grad_y = grad_z + size, *const zeros = grad_y + size;
  T *const first_z = zeros + size, *const first_y = first_z + size;
  CoefficientSums<T, is_partial> sums{columns, {}};
  for (int kind = 0; kind < kCoefficients; ++kind) {
    sums.buffer[kind] = first_y + (kind + 1) * size;
    columns.fill(sums.buffer[kind], nullptr);
  }
  const T *const driven = s.driven + sequence, *const coefficients = s.coefficients + range.begin;
  const T *const positions = s.all_positions + sequence, *const velocities = s.all_velocities + sequence;
  const T* const grad_positions = s.grad_positions == nullptr ? zeros : s.grad_positions + sequence;
  T* const grad_driven = s.grad_driven + sequence;
  double* const totals = s.grad_row + range.row * kCoefficients * width + range.begin;
  const bool streams = s.sizes.streams;
  columns.fill(grad_z, s.grad_final == nullptr ? nullptr : s.grad_final + row);
  columns.fill(grad_y, s.grad_final == nullptr ? nullptr : s.grad_final + row + width);
  columns.fill(zeros, nullptr);
  for (int64_t k = 0; k < range.count(); ++k) {
    first_z[k] = s.initial == nullptr ? T(0) : s.initial[row + k];
    first_y[k] = s.initial == nullptr ? T(0) : s.initial[row + width + k];
  }
  sums.add_up(totals, width, true);
  for (int64_t t = length - 1; t >= 0; --t) {
    const T* const previous_z = t == 0 ? first_z : velocities + (t - 1) * width;
    const T* const previous_y = t == 0 ? first_y : positions + (t - 1) * width;
    columns.each(false, [&](int64_t k, int64_t slot) {
      const auto coefficient = [&](Coefficient kind) { return columns.read(coefficients + kind * width + k); };
      const Vector<T> z = columns.read(previous_z + k), stiff = coefficient(kStiffness), ahead = coefficient(kLead);
      const Vector<T> w = columns.read(previous_y + k) + ahead * z, force = columns.read(driven + t * width + k) - stiff * w;
      const Vector<T> gy = load<T>(grad_y + slot) + columns.read(grad_positions + t * grad_step + k);
      const Vector<T> gz = load<T>(grad_z + slot) + coefficient(kStep) * gy, grad_force = coefficient(kGain) * gz;
      const Vector<T> grad_w = -stiff * grad_force;
      sums.add(sums.buffer[kStep] + slot, gy * columns.read(velocities + t * width + k));
      sums.add(sums.buffer[kGain] + slot, gz * force);
      sums.add(sums.buffer[kStiffness] + slot, -grad_force * w);
      sums.add(sums.buffer[kLead] + slot, grad_w * z);
      columns.write(grad_driven + t * width + k, grad_force, streams);
      store<T>(grad_z + slot, gz + ahead * grad_w);
      store<T>(grad_y + slot, gy + grad_w);
    });
    if (t % kSummedSteps == 0) sums.add_up(totals, width, false);
  }
  columns.copy(s.grad_initial + row, grad_z);
  columns.copy(s.grad_initial + row + width, grad_y);
  clear_steps<T>(grad_driven, width, length, steps, range.count());
  finish_streams();
}

template <typename T>
static void oscillators_forward(const Oscillators<T>& s, const ScanRange& range, T* workspace) {
  range.count() < kLanes<T> ? run_oscillators<T, true>(s, range, workspace) : run_oscillators<T, false>(s, range, workspace);
}

template <typename T>
static void oscillators_backward(const Oscillators<T>& s, const ScanRange& range, T* workspace) {
  range.count() < kLanes<T> ? run_oscillators_backward<T, true>(s, range, workspace)
                            : run_oscillators_backward<T, false>(s, range, workspace);
}

}  // namespace seqmem::SEQMEM_ISA
