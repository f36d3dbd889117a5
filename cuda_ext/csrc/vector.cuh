// Numbers in groups that one instruction of a GPU moves.
#pragma once

#include <torch/headeronly/macros/Macros.h>

#include <cstdint>

namespace atelier {

constexpr int WIDE_BYTES = 16;

template <typename T, int V>
struct alignas(sizeof(T) * V) Vector {
  T values[V];
};

// The most numbers of a type that one instruction moves.
template <typename T>
constexpr int WIDEST = WIDE_BYTES / static_cast<int>(sizeof(T));

// A view may begin anywhere; a wide access at an address that its width does not divide ends the program.
C10_HOST_DEVICE inline bool aligned(const void* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer) % WIDE_BYTES == 0;
}

}  // namespace atelier
