// The shared memory that a kernel was launched with, as numbers.
#pragma once

namespace infini {

template <class A>
__device__ A* shared_numbers() {
  extern __shared__ __align__(16) unsigned char bytes[];
  return reinterpret_cast<A*>(bytes);
}

}  // namespace infini
