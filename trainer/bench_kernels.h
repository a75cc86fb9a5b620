// Rates of a device: copies, products, and each kernel of a training step beside its bound.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>

#include "trainer/run_config.h"

namespace infini {

// One JSON line on standard output.
void print_line(const nlohmann::ordered_json& line);

// After `warm_up` runs: least, median and most seconds of `times` runs, the device waited for.
struct Times {
  double least = 0, median = 0, most = 0;
};
Times timed(Device device, int times, const std::function<void()>& work, int warm_up = 1);

// What everything else is compared with.
struct Ceilings {
  double copy_bytes_per_second = 0;     // read and written
  double product_flops_per_second = 0;  // of a square product
};
Ceilings measure_ceilings(Device device, DType dtype, std::int64_t square);

// The products of a block over `rows` tokens, forward and weight gradient.
void bench_products(const ModelConfig& model, Device device, DType dtype, std::int64_t rows);

// Every other kernel of a step over `rows` tokens, in rows of the batch of `row_tokens`, forwards
// and backwards: bytes that must move, or operations, by the second, and the share of the ceiling.
void bench_kernels(const RunConfig& config, Device device, std::int64_t batch_rows,
                   std::int64_t row_tokens, const Ceilings& ceilings);

}  // namespace infini
