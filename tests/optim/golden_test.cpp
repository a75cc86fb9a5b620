// The update rules against cases worked out elsewhere (tests/golden, and the folder
// INFINI_GOLDEN_DIR).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "data/hdf5.h"
#include "optim/optimizer.h"
#include "tensor/system_memory.h"

namespace infini {
namespace {

namespace fs = std::filesystem;

// Files named optimizers*.h5 of both folders.
std::vector<fs::path> golden_files() {
  std::vector<fs::path> folders = {fs::path(INFINI_SOURCE_DIR) / "tests" / "golden"};
  if (const char* folder = std::getenv("INFINI_GOLDEN_DIR")) folders.emplace_back(folder);
  std::vector<fs::path> files;
  for (const fs::path& folder : folders)
    for (const auto& entry : fs::directory_iterator(folder))
      if (entry.path().extension() == ".h5" &&
          entry.path().filename().string().starts_with("optimizers"))
        files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

// The settings behind the name of a rule in golden/README.md. Rates come from the file: the peak
// is 1.
OptimConfig config_of(const std::string& rule) {
  OptimConfig config;
  config.learning_rate = 1;
  config.groups.clear();
  config.adafactor.momentum = 0;
  if (rule == "adamw") {
    config.kind = OptimizerKind::kAdamW;
    config.groups = {{.pattern = "*", .weight_decay = 0.1}};
  } else if (rule == "adafactor_momentum") {
    config.adafactor.momentum = 0.9;
  } else if (rule == "adafactor_absolute") {
    config.adafactor.relative = false;
  } else {
    EXPECT_EQ(rule, "adafactor") << "a rule this test does not know";
  }
  return config;
}

// The largest difference from the file, relative to the largest value there. A value that has no
// more digits than an fp32 may have been rounded to it: half a unit in its last place is then no
// difference.
double worst_difference(const Tensor& tensor, const Hdf5Array<double>& expected) {
  const auto got = tensor.to(Device::kCpu).to_vector<double>();
  EXPECT_EQ(got.size(), expected.values.size());
  double worst = 0, largest = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (!std::isfinite(got[i])) return INFINITY;
    const double want = expected.values[i];
    const bool rounded = static_cast<double>(static_cast<float>(want)) == want;
    worst = std::max(worst, std::fabs(got[i] - want) - (rounded ? 0x1p-24 * std::fabs(want) : 0));
    largest = std::max(largest, std::fabs(want));
  }
  return worst / std::max(largest, 1e-300);
}

void run_case(const Hdf5File& file, const std::string& tensor, const std::string& rule,
              DType compute, Device device, double tolerance) {
  SCOPED_TRACE(text(tensor, " ", rule, " ", compute, " ", device));
  const auto initial = file.read_all<double>(tensor + "/initial");
  const auto gradients = file.read_all<double>(tensor + "/gradients");
  const auto rates = file.read_all<double>("learning_rate").values;
  const Shape shape{std::span<const std::int64_t>(initial.dims)};
  ASSERT_EQ(gradients.values.size(), rates.size() * shape.size());

  Parameters parameters({{.name = tensor, .shape = shape}}, compute, device);
  const Parameter& parameter = parameters[tensor];
  const DType full = parameter.master.dtype();
  parameter.master.copy_from(Tensor::of(initial.values, shape).to(full));
  parameters.refresh_values();
  const auto optimizer = make_optimizer(config_of(rule), parameters);

  for (std::size_t step = 0; step < rates.size(); ++step) {
    const std::span all(gradients.values);
    parameter.gradient.copy_from(
        Tensor::of(all.subspan(step * shape.size(), shape.size()), shape).to(full));
    optimizer->step(rates[step]);
    if (step == 0) {
      EXPECT_LE(worst_difference(parameter.master,
                                 file.read_all<double>(text(tensor, "/", rule, "/first"))),
                tolerance);
    }
  }
  EXPECT_LE(
      worst_difference(parameter.master, file.read_all<double>(text(tensor, "/", rule, "/last"))),
      tolerance);
}

void run_all(Device device) {
  for (const fs::path& path : golden_files()) {
    SCOPED_TRACE(path.string());
    const Hdf5File file = Hdf5File::open(path);
    int cases = 0;
    for (const std::string& tensor : file.list()) {
      if (!file.is_group(tensor)) continue;
      for (const std::string& rule : file.list(tensor)) {
        if (!file.is_group(tensor + "/" + rule)) continue;
        run_case(file, tensor, rule, DType::kFloat64, device, 1e-9);
        run_case(file, tensor, rule, DType::kFloat32, device, 2e-5);
        ++cases;
      }
    }
    EXPECT_GT(cases, 0);
  }
}

TEST(GoldenOptimizers, AreReproducedForEveryTensorAndRule) { run_all(Device::kCpu); }

TEST(GpuGoldenOptimizers, AreReproducedForEveryTensorAndRule) {
  if (!is_available(Device::kCuda)) GTEST_SKIP() << "this machine has no GPU";
  run_all(Device::kCuda);
}

}  // namespace
}  // namespace infini
