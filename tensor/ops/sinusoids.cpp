#include "tensor/ops/sinusoids.h"

#include <cmath>

namespace infini {

Tensor sinusoid_table(std::int64_t distances, std::int64_t width, double base, DType dtype,
                      Device device) {
  check(width % 2 == 0, "sinusoid_table: the width ", width, " is not even");
  const std::int64_t half = width / 2;
  std::vector<double> table(distances * width);
  for (std::int64_t d = 0; d < distances; ++d)
    for (std::int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(d) * std::pow(base, -2.0 * static_cast<double>(i) /
                                                                       static_cast<double>(width));
      table[d * width + i] = std::sin(angle);
      table[d * width + half + i] = std::cos(angle);
    }
  return Tensor::of(table, {distances, width}).to(dtype).to(device);
}

}  // namespace infini
