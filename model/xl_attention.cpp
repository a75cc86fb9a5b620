#include "model/xl_attention.h"

#include "model/attention_parameters.h"
#include "tensor/ops/product.h"
#include "tensor/system_memory.h"

namespace infini {
namespace {

// Tables [B, rows, C] that are read and written by runs of rows of every batch row.
class RunsOfRows {
 public:
  RunsOfRows(const Tensor& table, std::int64_t batch)
      : begin_(table.raw()),
        batch_(batch),
        bytes_(table.bytes() / batch),
        device_(table.device()) {}

  // Rows [first, first + count) of `row_bytes` each from rows [from_first, ...) of another table.
  void copy(std::int64_t first, const RunsOfRows& from, std::int64_t from_first, std::int64_t count,
            std::int64_t row_bytes) const {
    if (count <= 0) return;
    system_memory(device_).copy({begin_ + first * row_bytes, bytes_},
                                {from.begin_ + from_first * row_bytes, from.bytes_},
                                count * row_bytes, batch_);
  }

 private:
  std::byte* begin_;
  std::int64_t batch_, bytes_;
  Device device_;
};

}  // namespace

void XlAttention::declare(const ModelConfig& config, const std::string& prefix,
                          std::vector<ParameterSpec>& specs) {
  declare_projections(config, prefix, specs);
  const std::int64_t keys = std::int64_t{config.key_value_heads()} * config.head_width();
  specs.push_back({.name = prefix + "position.weight",
                   .shape = {keys, config.d_model},
                   .deviation = start_deviation(config, config.d_model)});
  for (const char* name : {"content_bias", "position_bias"})
    specs.push_back({.name = prefix + name,
                     .shape = {config.heads, config.head_width()},
                     .deviation = start_deviation(config, config.d_model),
                     .full_precision = true});
}

XlAttention::XlAttention(const ModelConfig& config, const Parameters& parameters,
                         const std::string& prefix, const Tensor& sinusoids,
                         const TensorGroup* group)
    : cache_tokens_(config.cached_tokens()),
      scale_(attention_scale(config)),
      sinusoids_(sinusoids),
      qkv_(parameters.joined(
          {prefix + "query.weight", prefix + "key.weight", prefix + "value.weight"})),
      key_value_(parameters.joined({prefix + "key.weight", prefix + "value.weight"})),
      position_(parameters[prefix + "position.weight"]),
      content_bias_(parameters[prefix + "content_bias"]),
      position_bias_(parameters[prefix + "position_bias"]),
      output_(parameters[prefix + "output.weight"]) {
  check(!group, "transformer_xl: ranks cannot share its blocks");
}

XlAttention::Output XlAttention::operator()(const Pass& pass, const Tensor& x,
                                            const Tensor& residual, const Span& span,
                                            const MemoryState& memory) const {
  const Cache before = cache(x, span, memory);
  const Tensor seen = use_memory_ ? before.seen : Tensor::zeros_like(before.seen);
  const Tensor qkv = linear(x, pass(qkv_));
  const Tensor cached = linear(before.context, pass(key_value_));
  const Tensor distances = sinusoids_.slice(0, cache_tokens_ + span.layout.tokens);
  const Tensor attended = relative_attention(qkv, cached, seen,
                                             {.keys = linear(distances, pass(position_)),
                                              .content_bias = pass(content_bias_),
                                              .position_bias = pass(position_bias_)},
                                             span.layout, scale_);
  return {.y = linear(attended, pass(output_), residual), .memory = before.after};
}

MemoryState XlAttention::remember(const Pass&, const Tensor& x, const Span& span,
                                  const MemoryState& memory) const {
  return cache(x, span, memory).after;
}

XlAttention::Cache XlAttention::cache(const Tensor& x, const Span& span,
                                      const MemoryState& memory) const {
  check(!span.groups,
        "transformer_xl: a segment needs the one before it; segments in groups would "
        "not have it");
  const HeadLayout& layout = span.layout;
  const std::int64_t batch = layout.batch, cache = cache_tokens_, width = x.shape()[1];
  const std::int64_t tokens = layout.segments * layout.tokens, context = cache + tokens,
                     read = context - layout.tokens;
  const DType dtype = x.dtype();
  const Device device = x.device();

  // What is carried in may be shorter, or longer, than the cache: the newest tokens count.
  Tensor carried, present;
  if (memory.cached) {
    const Shape& given = memory.cached.shape();
    check(given.rank() == 3 && given[0] == batch && given[2] == width &&
              memory.cached.dtype() == dtype,
          "transformer_xl: the cache is ", given, " in ", memory.cached.dtype(), ", expected [",
          batch, ", M, ", width, "] in ", dtype);
    const std::int64_t had = memory.cached.shape()[1], kept = std::min(had, cache);
    carried = Tensor::zeros({batch, cache, width}, dtype, device);
    present = Tensor::zeros({batch, cache}, DType::kUInt8, device);
    const std::int64_t row_bytes = width * bytes_of(dtype);
    RunsOfRows(carried, batch)
        .copy(cache - kept, {memory.cached, batch}, had - kept, kept, row_bytes);
    RunsOfRows(present, batch).copy(cache - kept, {memory.present, batch}, had - kept, kept, 1);
  } else {
    carried = Tensor::zeros({batch, cache, width}, dtype, device);
  }

  Cache result;
  result.seen = cache_seen(present, span.keep, span.borders.resets, layout, cache, device);
  result.context = Tensor::empty({batch * read, width}, dtype, device);
  result.after = {.cached = Tensor::empty({batch, cache, width}, dtype, device),
                  .present = Tensor::empty({batch, cache}, DType::kUInt8, device)};
  const RunsOfRows from_carried(carried, batch), from_x(x, batch);
  // The last `count` of the places before `end` go to `to`.
  const auto fill = [&](const RunsOfRows& to, std::int64_t first, std::int64_t count) {
    const std::int64_t row_bytes = width * bytes_of(dtype);
    const std::int64_t old = std::clamp<std::int64_t>(cache - first, 0, count);
    to.copy(0, from_carried, first, old, row_bytes);
    to.copy(old, from_x, first + old - cache, count - old, row_bytes);
  };
  fill({result.context, batch}, 0, read);
  fill({result.after.cached, batch}, tokens, cache);
  RunsOfRows(result.after.present, batch)
      .copy(0, {result.seen, batch}, layout.segments * cache, cache, 1);
  return result;
}

}  // namespace infini
