// The golden cases: whole models worked out in fp64 by an independent implementation.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/hdf5.h"
#include "model/recurrence.h"
#include "tensor/enum_names.h"
#include "tensor/system_memory.h"
#include "tests/relative_error.h"

namespace infini {
namespace {

namespace fs = std::filesystem;

ModelConfig config_of(const Hdf5File& file) {
  const nlohmann::json json = nlohmann::json::parse(file.text_attribute("/", "config"));
  const auto named = [&](const char* key, auto fallback, std::string_view alias = "",
                         decltype(fallback) aliased = {}) {
    const std::string name = json.at(key);
    if (name == alias) return aliased;
    if (const auto value = value_of<decltype(fallback)>(name)) return *value;
    throw Error(text("golden config: unknown ", key, " ", name));
  };
  ModelConfig config;
  config.layers = json.at("layers");
  config.d_model = json.at("d_model");
  config.heads = json.at("heads");
  config.kv_heads = json.at("kv_heads");
  config.d_head = json.at("d_head");
  config.feed_forward = json.at("ffn");
  config.vocabulary = json.at("vocab");
  config.segment_tokens = json.at("segment");
  config.tied = json.at("tied");
  config.norm_eps = json.at("norm_eps");
  config.rope_base = json.at("rope_base");
  config.memory_eps = json.at("memory_eps");
  config.memory = named("memory", MemoryRule::kLinear, "local", MemoryRule::kNone);
  config.activation = named("activation", Activation::kGelu, "gelu_tanh", Activation::kGelu);
  config.softmax_scale = named("softmax_scale", SoftmaxScale::kHead);
  config.first_segment = named("first_segment", FirstSegment::kGated);
  return config;
}

Tensor tensor_of(const Hdf5File& file, const std::string& path, DType dtype) {
  const auto array = file.read_all<double>(path);
  return Tensor::of(array.values, Shape(array.dims)).to(dtype);
}

double relative_error(const Tensor& got, const Tensor& expected) {
  return infini::relative_error(got.to_vector<double>(), expected.to_vector<double>(), 1e-30);
}

struct Tolerance {
  double logits, gradients;
  double loss = logits;
};

void run_case(const fs::path& path, DType dtype, const RecurrenceOptions& options,
              Tolerance tolerance, Device device = Device::kCpu) {
  SCOPED_TRACE(text(path.string(), " in ", dtype, " on ", device));
  const Hdf5File file = Hdf5File::open(path);
  const ModelConfig config = config_of(file);
  InfiniTransformer model(config, dtype, device);
  for (const Parameter& parameter : model.parameters().all())
    parameter.master.copy_from(
        tensor_of(file, "weights/" + parameter.name, parameter.master.dtype()));
  model.parameters().refresh_values();

  const auto optional = [&](const std::string& name, DType type) {
    return file.contains(name) ? tensor_of(file, name, type) : Tensor{};
  };
  const Rows rows{.segment_tokens = config.segment_tokens,
                  .tokens = tensor_of(file, "tokens", DType::kInt32),
                  .targets = tensor_of(file, "targets", DType::kInt32),
                  .weights = {},
                  .resets = optional("resets", DType::kUInt8),
                  .keep = optional("keep", DType::kUInt8)};
  Memories memory = empty_memories(config);
  const bool initial = file.contains("initial_memory");
  if (initial)
    for (int layer = 0; layer < config.layers; ++layer)
      memory[layer] = {.matrix = tensor_of(file, text("initial_memory/", layer, "/matrix"),
                                           accumulator_of(dtype))
                                     .to(device),
                       .normalizer = tensor_of(file, text("initial_memory/", layer, "/normalizer"),
                                               accumulator_of(dtype))
                                         .to(device)};

  std::int64_t scored = 0;
  for (const std::int32_t target : rows.targets.to_vector<std::int32_t>()) scored += target >= 0;
  Memories dmemory;
  const RowsResult result =
      Recurrence(model, options)
          .train(rows, memory, 1.0 / static_cast<double>(scored), {}, initial ? &dmemory : nullptr);

  EXPECT_NEAR(result.loss.item() / file.read_scalar<double>("loss"), 1, tolerance.loss);
  EXPECT_LT(relative_error(result.nll, tensor_of(file, "nll", DType::kFloat64)), tolerance.logits);
  for (const Parameter& parameter : model.parameters().all())
    EXPECT_LT(relative_error(parameter.gradient,
                             tensor_of(file, "grads/" + parameter.name, DType::kFloat64)),
              tolerance.gradients)
        << parameter.name;
  for (int layer = 0; layer < config.layers && config.memory != MemoryRule::kNone; ++layer)
    for (const auto& [name, state, gradient] :
         {std::tuple{"matrix", result.memory[layer].matrix,
                     initial ? dmemory[layer].matrix : Tensor{}},
          std::tuple{"normalizer", result.memory[layer].normalizer,
                     initial ? dmemory[layer].normalizer : Tensor{}}}) {
      EXPECT_LT(relative_error(state, tensor_of(file, text("final_memory/", layer, "/", name),
                                                DType::kFloat64)),
                tolerance.logits)
          << name << " of layer " << layer;
      if (initial) {
        EXPECT_LT(relative_error(gradient,
                                 tensor_of(file, text("grads_initial_memory/", layer, "/", name),
                                           DType::kFloat64)),
                  tolerance.gradients)
            << "gradient of " << name << " of layer " << layer;
      }
    }

  // Logits, piece by piece, with the memory carried.
  const Tensor expected = tensor_of(file, "logits", DType::kFloat64);
  const std::vector<std::uint8_t> kept =
      rows.keep ? rows.keep.to_vector<std::uint8_t>() : std::vector<std::uint8_t>{};
  const RowsResult evaluated = Recurrence(model, {}).evaluate(rows, memory, 2);
  EXPECT_LT(relative_error(evaluated.nll, tensor_of(file, "nll", DType::kFloat64)),
            tolerance.logits);
  std::vector<double> got, want;
  const std::int64_t batch = rows.batch(), tokens = rows.row_tokens(),
                     vocabulary = config.vocabulary;
  const std::vector<double> all = expected.to_vector<double>();
  for (std::int64_t b = 0; b < batch; ++b) {
    Memories state = memory;
    if (initial)
      for (MemoryState& layer : state)
        layer = {.matrix = layer.matrix.slice(b, 1), .normalizer = layer.normalizer.slice(b, 1)};
    for (const Piece& piece : cut_row(tokens, config.segment_tokens, 1)) {
      const std::int64_t begin = piece.first * config.segment_tokens;
      Span span{
          .layout = {.batch = 1,
                     .segments = 1,
                     .tokens = piece.tokens,
                     .heads = config.heads,
                     .kv_heads = config.key_value_heads(),
                     .head_width = config.head_width()},
          .tokens = rows.tokens.slice(b, 1).reshape({tokens}).slice(begin, piece.tokens).to(device),
          .keep =
              rows.keep
                  ? rows.keep.slice(b, 1).reshape({tokens}).slice(begin, piece.tokens).to(device)
                  : Tensor{},
          .borders = {}};
      if (rows.resets)
        span.borders.resets = rows.resets.slice(b, 1)
                                  .reshape({rows.segments()})
                                  .slice(piece.first, 1)
                                  .reshape({1, 1})
                                  .to(device);
      const InfiniTransformer::Output out = model(Pass{}, span, state);
      state = out.memory;
      const std::vector<double> logits = model.logits(out.hidden).to_vector<double>();
      for (std::int64_t t = 0; t < piece.tokens; ++t) {
        if (!kept.empty() && !kept[b * tokens + begin + t]) continue;
        for (std::int64_t n = 0; n < vocabulary; ++n) {
          got.push_back(logits[t * vocabulary + n]);
          want.push_back(all[((b * tokens) + begin + t) * vocabulary + n]);
        }
      }
    }
  }
  const auto count = static_cast<std::int64_t>(got.size());
  EXPECT_LT(relative_error(Tensor::of(got, {count}), Tensor::of(want, {count})), tolerance.logits);
}

std::vector<fs::path> cases() {
  std::vector<fs::path> folders{fs::path(INFINI_SOURCE_DIR) / "tests" / "golden"};
  if (const char* folder = std::getenv("INFINI_GOLDEN_DIR")) folders.emplace_back(folder);
  std::vector<fs::path> files;
  for (const fs::path& folder : folders)
    for (const auto& entry : fs::directory_iterator(folder))
      if (entry.path().extension() == ".h5" &&
          Hdf5File::open(entry.path()).has_attribute("/", "config"))
        files.push_back(entry.path());
  return files;
}

const RecurrenceOptions kSchedules[] = {
    {.schedule = RowSchedule::kParallel},
    {.schedule = RowSchedule::kParallel, .recompute_blocks = true},
    {.schedule = RowSchedule::kStreaming, .segments_per_tape = 1},
    {.schedule = RowSchedule::kStreaming, .segments_per_tape = 2, .recompute_blocks = true},
};

TEST(Golden, HasEveryCaseOfTheCopy) { EXPECT_GE(cases().size(), 8u); }

TEST(Golden, Fp64ReproducesEveryCaseInEverySchedule) {
  for (const fs::path& path : cases())
    for (const RecurrenceOptions& options : kSchedules)
      run_case(path, DType::kFloat64, options, {.logits = 1e-9, .gradients = 1e-9});
}

class GpuGolden : public testing::Test {
 protected:
  void SetUp() override {
    if (!is_available(Device::kCuda)) GTEST_SKIP() << "this machine has no GPU";
  }
};

TEST_F(GpuGolden, Fp64ReproducesEveryCaseInEverySchedule) {
  for (const fs::path& path : cases())
    for (const RecurrenceOptions& options : kSchedules)
      run_case(path, DType::kFloat64, options, {.logits = 1e-9, .gradients = 1e-9}, Device::kCuda);
}

TEST_F(GpuGolden, Fp32ReproducesEveryCaseInEverySchedule) {
  for (const fs::path& path : cases())
    for (const RecurrenceOptions& options : kSchedules)
      run_case(path, DType::kFloat32, options, {.logits = 1e-4, .gradients = 2e-4}, Device::kCuda);
}

// The loss is held to 1e-2; what is small among logits and gradients rounds away in bf16.
TEST_F(GpuGolden, Bf16StaysNearInEverySchedule) {
  for (const fs::path& path : cases())
    for (const RecurrenceOptions& options : kSchedules)
      run_case(path, DType::kBFloat16, options, {.logits = 3e-2, .gradients = 2e-1, .loss = 1e-2},
               Device::kCuda);
}

TEST(Golden, Fp32ReproducesEveryCaseInEverySchedule) {
  for (const fs::path& path : cases())
    for (const RecurrenceOptions& options : kSchedules)
      run_case(path, DType::kFloat32, options, {.logits = 1e-5, .gradients = 2e-4});
}

}  // namespace
}  // namespace infini
