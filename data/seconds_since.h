// What has passed since a moment.
#pragma once

#include <chrono>

namespace infini {

inline double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace infini
