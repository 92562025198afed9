// Forward and backward loop of a causal convolution: one batch row and one group of channels.
#pragma once

#include <cstdint>
#include <cstring>

#include "causal_convolution.h"
#include "sequence_rows.h"
#include "vector.h"

namespace seqmem::SEQMEM_ISA {

// Steps -(taps - 1) to -1 are those of the state before the first step.
template <typename T>
class CausalConvolutionTask {
  static constexpr int width = kLanes<T>;
  static constexpr int64_t chunk_steps = 32;  // whose inputs and gradients stay in cache

 public:
  CausalConvolutionTask(const CausalConvolution<T>& convolution, int64_t row, int64_t group)
      : s(convolution), row(row), first_channel(group * kConvolutionChannels),
        end_channel(
            s.channels < first_channel + kConvolutionChannels ? s.channels : first_channel + kConvolutionChannels),
        length(s.length(row)), before(s.taps - 1) {}

  void forward() const {
    int64_t begin = -before;  // first step of the document
    for (int64_t t = 0; t < length; ++t) {
      if (restarts(t)) begin = t;
      T* const to = s.outputs + (row * s.steps + t) * s.channels;
      for_each_vector([&](int64_t channel, int64_t lanes) {
        Vector<T> sum = load<T>(s.bias + channel);
        for (int64_t lag = t - begin < before ? t - begin : before; lag >= 0; --lag) {
          const T* const from = input(t - lag);
          if (from != nullptr) sum += load<T>(weight(lag) + channel) * load_partial<T>(from + channel, lanes);
        }
        store_result(to + channel, sum, lanes);
      });
    }
    clear_padding(s.outputs);
    for (int64_t k = 0; k < before; ++k) {
      const int64_t step = length - before + k;
      const T* const from = step < begin ? nullptr : input(step);
      copy(from, s.final + (row * before + k) * s.channels);
    }
    finish_streams();
  }

  void backward() const {
    clear_padding(s.grad_inputs);
    for_each_vector([&](int64_t channel, int64_t) {
      for (int64_t k = 0; k <= s.taps; ++k) store<T>(grad_parameter(k) + channel, Vector<T>{});
    });
    int64_t end = length;  // of the document: the first step of the next one
    bool is_last = true;   // document
    for (int64_t step = length - 1; step >= -before; --step) {
      input_gradient(step, end, is_last);
      if (step >= 0 && restarts(step)) {
        end = step;
        is_last = false;
      }
    }
    if (s.grad_outputs != nullptr) {
      int64_t begin = -before;
      for (int64_t first = 0; first < length; first += chunk_steps) begin = parameter_gradients(first, begin);
    }
    finish_streams();
  }

 private:
  template <typename Function>
  void for_each_vector(const Function& function) const {
    int64_t channel = first_channel;
    for (; channel + width <= end_channel; channel += width) function(channel, int64_t(width));
    if (channel < end_channel) function(channel, end_channel - channel);
  }

  bool restarts(int64_t step) const { return s.restarts != nullptr && s.restarts[row * s.steps + step]; }

  // Inputs of a step, null for zeros.
  const T* input(int64_t step) const {
    if (step >= 0) return s.inputs + row * s.row_stride + step * s.step_stride;
    return s.initial == nullptr ? nullptr : s.initial + (row * before + step + before) * s.channels;
  }

  // The tap of the input that is `lag` steps old.
  const T* weight(int64_t lag) const { return s.weight + (before - lag) * s.padded_channels(); }
  T* grad_parameter(int64_t k) const { return s.grad_parameters + (row * (s.taps + 1) + k) * s.padded_channels(); }
  const T* grad_output(int64_t step) const { return s.grad_outputs + row * s.grad_row_stride + step * s.grad_step_stride; }

  void store_result(T* to, const Vector<T>& value, int64_t lanes) const {
    if (kCanStream && s.streams) {
      stream<T>(to, value);
    } else {
      store_partial<T>(to, value, lanes);
    }
  }

  void copy(const T* from, T* to) const {
    const size_t bytes = (end_channel - first_channel) * sizeof(T);
    if (from == nullptr) {
      std::memset(to + first_channel, 0, bytes);
    } else {
      std::memcpy(to + first_channel, from + first_channel, bytes);
    }
  }

  void clear_padding(T* to) const {
    for (int64_t t = length; t < s.steps; ++t) copy(nullptr, to + (row * s.steps + t) * s.channels);
  }

  // Gradient of the inputs of a step: from the outputs of its document, and from the state after the last step.
  void input_gradient(int64_t step, int64_t end, bool is_last) const {
    if (step < 0 && s.grad_initial == nullptr) return;
    const int64_t limit = step + s.taps < end ? step + s.taps : end, place = step - (length - before);
    const T* const after =
        s.grad_final == nullptr || !is_last || place < 0 ? nullptr : s.grad_final + (row * before + place) * s.channels;
    T* const to = step < 0 ? s.grad_initial + (row * before + step + before) * s.channels
                           : s.grad_inputs + (row * s.steps + step) * s.channels;
    for_each_vector([&](int64_t channel, int64_t lanes) {
      Vector<T> sum{};
      if (after != nullptr) sum += load_partial<T>(after + channel, lanes);  // a sum, which flushes denormals
      for (int64_t t = step < 0 ? 0 : step; s.grad_outputs != nullptr && t < limit; ++t) {
        sum += load<T>(weight(t - step) + channel) * load_partial<T>(grad_output(t) + channel, lanes);
      }
      if (step < 0) {
        store_partial<T>(to + channel, sum, lanes);
      } else {
        store_result(to + channel, sum, lanes);
      }
    });
  }

  // Adds the sums over a chunk of steps; returns the first step of the document at its end.
  int64_t parameter_gradients(int64_t first, int64_t begin) const {
    const int64_t count = length - first < chunk_steps ? length - first : chunk_steps;
    int64_t begins[chunk_steps];
    for (int64_t t = 0; t < count; ++t) {
      if (restarts(first + t)) begin = first + t;
      begins[t] = begin;
    }
    for_each_vector([&](int64_t channel, int64_t lanes) {
      for (int64_t lag = -1; lag < s.taps; ++lag) {  // -1: the bias
        Vector<T> sum{};
        for (int64_t t = 0; t < count; ++t) {
          const int64_t step = first + t;
          const Vector<T> grad = load_partial<T>(grad_output(step) + channel, lanes);
          if (lag < 0) {
            sum += grad;
          } else if (step - lag >= begins[t]) {
            const T* const from = input(step - lag);
            if (from != nullptr) sum += grad * load_partial<T>(from + channel, lanes);
          }
        }
        T* const to = grad_parameter(lag < 0 ? s.taps : before - lag) + channel;
        store<T>(to, load<T>(to) + sum);
      }
    });
    return begin;
  }

  const CausalConvolution<T>& s;
  const int64_t row, first_channel, end_channel, length, before;
};

}  // namespace seqmem::SEQMEM_ISA
