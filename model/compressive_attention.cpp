#include "model/compressive_attention.h"

#include "model/attention_parameters.h"
#include "model/runs_of_rows.h"
#include "tensor/ops/compression.h"
#include "tensor/ops/product.h"

namespace infini {
namespace {

// What each segment reads: the compressed memory, then the tokens.
struct Context {
  Tensor rows;  // [B S (C + M), D]
  Tensor seen;  // [B, S + 1, C + M]
};
Context joined(const NewestTokens& compressed, const NewestTokens& tokens, const HeadLayout& layout,
               std::int64_t windows) {
  const auto [batch, borders, first] = compressed.seen.dims<3>();
  const std::int64_t second = tokens.seen.shape()[2], places = first + second,
                     width = tokens.context.shape()[1];
  const DType dtype = tokens.context.dtype();
  const Device device = tokens.context.device();
  const Context context{
      .rows = Tensor::empty({batch * layout.segments * places, width}, dtype, device),
      .seen = Tensor::empty({batch, borders, places}, DType::kUInt8, device)};
  const RunsOfRows rows(context.rows, batch), seen(context.seen, batch * borders);
  const std::int64_t row_bytes = width * bytes_of(dtype);
  for (std::int64_t s = 0; s < layout.segments; ++s) {
    rows.copy(s * places, {compressed.context, batch}, s * windows, first, row_bytes);
    rows.copy(s * places + first, {tokens.context, batch}, s * layout.tokens, second, row_bytes);
  }
  seen.copy(0, {compressed.seen, batch * borders}, 0, first, 1);
  seen.copy(first, {tokens.seen, batch * borders}, 0, second, 1);
  return context;
}

// Of each segment, the first `count` of the rows that it finds before it: [B S count, C].
Tensor oldest(const Tensor& context, const HeadLayout& layout, std::int64_t step,
              std::int64_t count, const Shape& shape, std::int64_t row_bytes) {
  const Tensor rows = Tensor::empty(shape, context.dtype(), context.device());
  for (std::int64_t s = 0; s < layout.segments; ++s)
    RunsOfRows(rows, layout.batch)
        .copy(s * count, {context, layout.batch}, s * step, count, row_bytes);
  return rows;
}

}  // namespace

void CompressiveAttention::declare(const ModelConfig& config, const std::string& prefix,
                                   std::vector<ParameterSpec>& specs) {
  XlAttention::declare(config, prefix, specs);
  const std::int64_t inputs = config.compression_rate * config.d_model;
  if (config.compression == Compression::kConvolution)
    specs.push_back({.name = prefix + "compression.weight",
                     .shape = {config.d_model, inputs},
                     .deviation = start_deviation(config, inputs)});
}

CompressiveAttention::CompressiveAttention(const ModelConfig& config, const Parameters& parameters,
                                           const std::string& prefix, const Tensor& sinusoids,
                                           const TensorGroup* group)
    : attention_(config, parameters, prefix, sinusoids, group),
      architecture_(config.architecture_name()),
      cache_tokens_(config.cached_tokens()),
      compressed_tokens_(config.compressed_rows()),
      rate_(config.compression_rate),
      scale_(attention_scale(config)),
      weight_(config.reconstruction_weight / (config.heads * config.head_width())),
      learned_(config.compression == Compression::kConvolution),
      one_(Tensor::of(std::vector<double>{1}, {})
               .to(accumulator_of(sinusoids.dtype()))
               .to(sinusoids.device())) {
  if (learned_) compression_ = parameters[prefix + "compression.weight"];
}

CompressiveAttention::Output CompressiveAttention::operator()(const Pass& pass, const Tensor& x,
                                                              const Tensor& residual,
                                                              const Span& span,
                                                              const MemoryState& memory) const {
  const HeadLayout& layout = span.layout;
  const Memory found = compress(pass, x, span, memory);
  const Context context =
      joined(found.compressed, found.tokens, layout, found.window_seen.shape()[2]);
  const Tensor qkv = attention_.project(pass, x);
  const Tensor y = attention_.read(pass, qkv, context.rows, context.seen, layout);
  reconstruct(pass, qkv, found, layout);
  return {.y = attention_.output(pass, y, residual), .memory = found.after()};
}

MemoryState CompressiveAttention::remember(const Pass& pass, const Tensor& x, const Span& span,
                                           const MemoryState& memory) const {
  return compress(pass, x, span, memory).after();
}

CompressiveAttention::Memory CompressiveAttention::compress(const Pass& pass, const Tensor& x,
                                                            const Span& span,
                                                            const MemoryState& memory) const {
  const HeadLayout& layout = span.layout;
  const std::int64_t width = x.shape()[1], windows = layout.tokens / rate_,
                     rows = layout.batch * layout.segments * windows;
  Memory result;
  result.tokens =
      newest_tokens(architecture_, x, span, memory.cached, memory.present, cache_tokens_);
  result.leaving = oldest(result.tokens.context, layout, layout.tokens, windows * rate_,
                          {rows * rate_, width}, width * bytes_of(x.dtype()));
  result.window_seen = windows_seen(result.tokens.seen, layout, rate_);
  if (rows == 0)
    result.windows = Tensor::empty({0, width}, x.dtype(), x.device());
  else if (learned_)
    result.windows = linear(result.leaving.reshape({rows, rate_ * width}), pass(compression_));
  else
    result.windows = window_means(result.leaving, rate_);

  Span of_windows = span;
  of_windows.layout.tokens = windows;
  of_windows.keep = result.window_seen.reshape({rows});
  result.compressed =
      newest_tokens(architecture_, result.windows.unwatched(), of_windows, memory.compressed,
                    memory.compressed_present, compressed_tokens_);
  return result;
}

void CompressiveAttention::reconstruct(const Pass& pass, const Tensor& qkv, const Memory& memory,
                                       const HeadLayout& layout) const {
  const std::int64_t count = memory.window_seen.shape()[2] * rate_;
  if (!learned_ || !pass.tape || pass.auxiliary_scale * weight_ == 0 || count == 0) return;
  const Tensor seen = oldest(memory.tokens.seen, layout, cache_tokens_, count,
                             {layout.batch, layout.segments, count}, 1);
  const Tensor loss = attention_reconstruction(
      qkv, {.rows = attention_.constant_pairs(pass, memory.leaving), .seen = seen},
      {.rows = attention_.constant_pairs(pass, memory.windows), .seen = memory.window_seen}, layout,
      scale_, pass.auxiliary_scale * weight_);
  if (loss.tape()) pass.tape->seed(loss, one_);  // else the compression is frozen
}

MemoryState CompressiveAttention::Memory::after() const {
  return {.cached = tokens.rows,
          .present = tokens.present,
          .compressed = compressed.rows,
          .compressed_present = compressed.present};
}

}  // namespace infini
