// How the tokens of a head are spread over several blocks, and what these sum added up in order.
#pragma once

#include <algorithm>

#include "tensor/ops/cuda_math.cuh"
#include "tensor/ops/launch.cuh"
#include "tensor/tape.h"

namespace infini {

constexpr int kTileTokens = 64;

// Tokens of a head are cut into `count` runs of `each` tiles when there are too few heads to fill a
// device. A function of the shape alone, so that sums over runs are the same on every device.
struct Runs {
  int tiles, each = 1, count;

  Runs(std::int64_t heads, std::int64_t tokens) {
    constexpr std::int64_t kPlaces = 264, kStart = 2;  // blocks at a time; tiles a start is worth
    tiles = static_cast<int>((tokens + kTileTokens - 1) / kTileTokens);
    std::int64_t best = 0;
    for (int n = 1; n <= std::min(tiles, 32); ++n) {
      const int length = (tiles + n - 1) / n;
      const std::int64_t waves = (heads * n + kPlaces - 1) / kPlaces,
                         time = waves * (length + kStart);
      if (n > 1 && time >= best) continue;
      best = time;
      each = length;
    }
    count = (tiles + each - 1) / each;
  }
};

// to (+)= sum over parts [parts, size], four numbers a thread.
static __global__ void sum_parts_kernel(const float* from, int parts, std::int64_t size, float* to,
                                        bool accumulate) {
  const std::int64_t i = (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * 4;
  if (i >= size) return;
  float sum[4] = {};
  if (accumulate) load_pack<4>(to + i, sum);
  for (int part = 0; part < parts; ++part) {
    float values[4];
    load_pack<4>(from + part * size + i, values);
#pragma unroll
    for (int k = 0; k < 4; ++k) sum[k] += values[k];
  }
  store_pack<4>(to + i, sum);
}

// Where the runs of a head put what is summed over tokens: into the target when there is one run,
// else side by side, to be added in order.
class RunSums {
 public:
  RunSums(const GradTarget& target, int runs) : target_(target), runs_(runs) {
    if (!target) return;
    size_ = target.tensor.size();
    if (runs > 1) parts_ = Tensor::empty(Shape{runs, size_}, DType::kFloat32, Device::kCuda);
  }
  // The first run's place, others `size()` further each; null when nobody asked.
  float* data() const {
    if (!target_) return nullptr;
    return (parts_ ? parts_ : target_.tensor).data<float>();
  }
  std::int64_t size() const { return size_; }
  bool accumulate() const { return runs_ == 1 && target_.accumulate; }

  void add_up(const char* who) const {
    if (parts_)
      launch(who, sum_parts_kernel, blocks_for(size_, 1024), 256, 0, parts_.data<float>(), runs_,
             size_, target_.tensor.data<float>(), target_.accumulate);
  }

 private:
  GradTarget target_;
  int runs_;
  std::int64_t size_ = 0;
  Tensor parts_;
};

}  // namespace infini
