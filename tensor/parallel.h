// Loops over the cores of the CPU. How work is cut never depends on the number of threads where it
// would change a sum: each index is computed by exactly one call, in its own order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>
#include <mutex>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace infini {

inline int thread_count() {
#ifdef _OPENMP
  return omp_in_parallel() ? 1 : omp_get_max_threads();
#else
  return 1;
#endif
}

// Calls task(i) once for each i in [0, count), on all cores. Exceptions reach the caller (one of
// them).
template <class Task>
void parallel_for(std::int64_t count, Task&& task) {
#ifdef _OPENMP
  if (count > 1 && thread_count() > 1) {
    std::exception_ptr failure;
    std::mutex mutex;
#pragma omp parallel for schedule(dynamic, 1)
    for (std::int64_t i = 0; i < count; ++i) {
      try {
        task(i);
      } catch (...) {
        const std::lock_guard lock(mutex);
        failure = std::current_exception();
      }
    }
    if (failure) std::rethrow_exception(failure);
    return;
  }
#endif
  for (std::int64_t i = 0; i < count; ++i) task(i);
}

// Calls task(begin, end) for consecutive pieces of [0, count) of `grain` indices.
template <class Task>
void parallel_ranges(std::int64_t count, std::int64_t grain, Task&& task) {
  const std::int64_t pieces = (count + grain - 1) / grain;
  parallel_for(pieces, [&](std::int64_t piece) {
    task(piece * grain, std::min(count, (piece + 1) * grain));
  });
}

// Elements of a flat loop that make a piece worth a thread.
constexpr std::int64_t kElementGrain = 16384;

}  // namespace infini
