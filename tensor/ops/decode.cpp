#include "tensor/ops/decode.h"

namespace infini {
namespace {

// A product with one vector after another is what the ops by themselves do well enough on a CPU.
class CpuDecode final : public DecodeKernels {
 public:
  bool plan(DecodePlan&) const override { return false; }
  void renew(DecodePlan&) const override { refuse(); }
  void decode(const DecodePlan&, const DecodeStep&) const override { refuse(); }

 private:
  [[noreturn]] static void refuse() { throw Error("decode: there is no such kernel for the CPU"); }
};

const CpuDecode kernels;

void check_tensor(const char* what, const Tensor& tensor, const Shape& shape, DType dtype) {
  check(tensor.shape() == shape && tensor.dtype() == dtype, "decode: ", what, " is ",
        tensor.dtype(), tensor.shape(), ", expected ", dtype, shape);
}

void check_model(const DecodeModel& model) {
  check(!model.layers.empty(), "decode: a model without layers");
  const HeadLayout& heads = model.heads;
  const std::int64_t width = model.width(), inner = model.inner(), tokens = model.window_tokens();
  const DType type = model.embedding.dtype(), full = accumulator_of(type);
  const std::int64_t up = inner * (model.activation == DecodeActivation::kSwiglu ? 2 : 1);
  check_tensor("final_norm", model.final_norm, {width}, full);
  check_tensor("head", model.head, {model.vocabulary(), width}, type);
  check_tensor("rotary_table", model.rotary_table, {tokens, heads.head_width}, full);
  const bool recalls = static_cast<bool>(model.layers.front().gate);
  for (const DecodeLayer& layer : model.layers) {
    check_tensor("attention_norm", layer.attention_norm, {width}, full);
    check_tensor("feed_forward_norm", layer.feed_forward_norm, {width}, full);
    check_tensor("qkv", layer.qkv, {heads.qkv_width(), width}, type);
    check_tensor("output", layer.output, {width, heads.query_width()}, type);
    check_tensor("up", layer.up, {up, width}, type);
    check_tensor("down", layer.down, {width, inner}, type);
    check_tensor("window_qkv", layer.window_qkv, {tokens, heads.qkv_width()}, type);
    check_tensor("window_rotated", layer.window_rotated, {tokens, heads.rotated_width()}, type);
    check(static_cast<bool>(layer.gate) == recalls, "decode: gates in some layers only");
    if (layer.gate) check_tensor("gate", layer.gate, {heads.heads}, full);
    if (!layer.matrix) continue;
    check_tensor("matrix", layer.matrix, {heads.kv_heads, heads.head_width, heads.head_width},
                 full);
    check_tensor("normalizer", layer.normalizer, {heads.kv_heads, heads.head_width}, full);
  }
}

const DecodeKernels& kernels_of(const DecodeModel& model) {
  return on<kernels, cuda_decode>(model.embedding.device());
}

}  // namespace

std::optional<DecodePlan> decode_plan(const DecodeModel& model) {
  check_model(model);
  DecodePlan plan;
  plan.model = model;
  if (!kernels_of(model).plan(plan)) return {};
  return plan;
}

void renew(DecodePlan& plan, const DecodeModel& model) {
  check_model(model);
  plan.model = model;
  kernels_of(model).renew(plan);
}

void decode(DecodePlan& plan, const DecodeStep& step) {
  const DecodeModel& model = plan.model;
  const DType type = model.embedding.dtype();
  check(step.from || (step.token >= 0 && step.token < model.vocabulary()), "embedding: token id ",
        step.token, " in a vocabulary of ", model.vocabulary());
  check(step.position >= 0 && step.position < model.window_tokens(), "decode: position ",
        step.position, " in a segment of ", model.window_tokens());
  check_tensor("hidden", step.hidden, {1, model.width()}, type);
  if (step.logits) check_tensor("logits", step.logits, {1, model.vocabulary()}, type);
  if (step.from) check_tensor("from", step.from, {1}, DType::kInt64);
  if (step.choice) check_tensor("choice", step.choice, {1}, DType::kInt64);
  check(!step.choice || step.logits, "decode: a choice needs logits");
  kernels_of(model).decode(plan, step);
  ++plan.steps;
}

void check_status(const DecodePlan& plan) {
  check<DeviceError>(plan.status.to_vector<std::int32_t>()[0] == 0,
                     "decode: blocks of the kernel waited for each other in vain");
}

std::int32_t token_of(std::int64_t choice) {
  return static_cast<std::int32_t>(~static_cast<std::uint32_t>(choice));
}

}  // namespace infini
