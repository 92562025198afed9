// Names and parameters of the operators that update a LegS or LegT memory.
#pragma once

#include "shared.h"

namespace seqmem {

enum class Method { legs_euler_forward, legs_euler_backward, legs_trapezoidal, legs_zoh, legt_euler_forward };

constexpr const char* operator_name(Method method) {
  switch (method) {
    case Method::legs_euler_forward:
      return "seqmem::legs_euler_forward";
    case Method::legs_euler_backward:
      return "seqmem::legs_euler_backward";
    case Method::legs_trapezoidal:
      return "seqmem::legs_trapezoidal";
    case Method::legs_zoh:
      return "seqmem::legs_zoh";
    case Method::legt_euler_forward:
      return "seqmem::legt_euler_forward";
  }
  return "";
}

constexpr const char* adjoint_name(Method method) {
  switch (method) {
    case Method::legs_euler_forward:
      return "seqmem::legs_euler_forward_adjoint";
    case Method::legs_euler_backward:
      return "seqmem::legs_euler_backward_adjoint";
    case Method::legs_trapezoidal:
      return "seqmem::legs_trapezoidal_adjoint";
    case Method::legs_zoh:
      return "seqmem::legs_zoh_adjoint";
    case Method::legt_euler_forward:
      return "seqmem::legt_euler_forward_adjoint";
  }
  return "";
}

// Alpha of the generalised bilinear transform; unused for zero-order hold.
constexpr double alpha_of(Method method) {
  return method == Method::legs_euler_backward ? 1.0 : method == Method::legs_trapezoidal ? 0.5 : 0.0;
}

}  // namespace seqmem
