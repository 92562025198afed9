// Sequential online LegS projection on one thread: the trapezoidal step with dt = 1/t, one coefficient after the other, with
// running sums of the explicit and the implicit half.
#include <cmath>
#include <cstdint>
#include <vector>

template <typename T>
static void project(const T* signal, int64_t length, int64_t order, T* c) {
  std::vector<T> scale(order);
  for (int64_t n = 0; n < order; ++n) {
    scale[n] = T(std::sqrt(2.0 * double(n) + 1.0));
    c[n] = T(0);
  }
  c[0] = signal[0];
  for (int64_t t = 1; t < length; ++t) {
    const T dt = T(1) / T(t), half = dt / 2;
    T explicit_sum = 0, implicit_sum = 0;
    for (int64_t n = 0; n < order; ++n) {
      const T x = c[n];
      const T middle = x - half * (scale[n] * explicit_sum + T(n + 1) * x) + dt * signal[t] * scale[n];
      explicit_sum += scale[n] * x;
      c[n] = (middle - half * scale[n] * implicit_sum) / (T(1) + T(n + 1) * half);
      implicit_sum += scale[n] * c[n];
    }
  }
}

extern "C" void project_float(const float* signal, int64_t length, int64_t order, float* c) { project(signal, length, order, c); }
extern "C" void project_double(const double* signal, int64_t length, int64_t order, double* c) { project(signal, length, order, c); }
