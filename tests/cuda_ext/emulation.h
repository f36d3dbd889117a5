// CUDA kernels on a CPU: a thread of the system for each thread of a block, blocks one after the other.
//
// It shows wrong indices, missing barriers between threads, and wrong sums at any size of block. It cannot show what
// depends on warps, on alignment, or on the launch.
#pragma once

#include <barrier>
#include <cstddef>
#include <thread>
#include <vector>

#define __global__ static
#define __device__
#define __shared__ static  // one for each instance of a kernel: blocks take turns
#define __launch_bounds__(...)

struct Coordinates {
  unsigned x = 0, y = 0, z = 0;
};

inline thread_local Coordinates threadIdx, blockIdx;
inline Coordinates blockDim, gridDim;
inline std::barrier<>* block_barrier = nullptr;

inline void __syncthreads() {
  block_barrier->arrive_and_wait();
}

// Runs kernel(arguments...) in columns × rows blocks of some threads.
template <typename Kernel, typename... Arguments>
void launch(Kernel kernel, unsigned columns, unsigned rows, unsigned threads, Arguments... arguments) {
  blockDim = {threads, 1, 1};
  gridDim = {columns, rows, 1};
  std::barrier<> barrier(static_cast<std::ptrdiff_t>(threads)), end_of_block(static_cast<std::ptrdiff_t>(threads));
  block_barrier = &barrier;
  std::vector<std::thread> running;
  for (unsigned thread = 0; thread < threads; ++thread) {
    running.emplace_back([&, thread] {
      threadIdx = {thread, 0, 0};
      for (unsigned block = 0; block < columns * rows; ++block) {
        blockIdx = {block % columns, block / columns, 0};
        kernel(arguments...);
        end_of_block.arrive_and_wait();
      }
    });
  }
  for (std::thread& thread : running) thread.join();
}
