// Turns a tensor's dtype into a C++ type. (The macros of torch for this break on kernel launches.)
#pragma once

#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Exception.h>
#include <torch/headeronly/util/Half.h>

namespace atelier {

template <typename T>
struct Type {
  using type = T;
};

// Calls body(Type<T>{}) with the T of a floating dtype.
template <typename Body>
void dispatch_floating(torch::headeronly::ScalarType type, Body body) {
  using torch::headeronly::ScalarType;
  switch (type) {
    case ScalarType::Float:
      return body(Type<float>{});
    case ScalarType::Half:
      return body(Type<torch::headeronly::Half>{});
    case ScalarType::BFloat16:
      return body(Type<torch::headeronly::BFloat16>{});
    default:
      STD_TORCH_CHECK(false, "dtype: must be float32, float16 or bfloat16");
  }
}

}  // namespace atelier
