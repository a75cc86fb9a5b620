#include "model/feedback_attention.h"

#include "model/attention_parameters.h"
#include "model/batch_rows.h"
#include "tensor/ops/marked_attention.h"
#include "tensor/ops/product.h"
#include "tensor/ops/relative_attention.h"
#include "tensor/ops/rotary.h"
#include "tensor/ops/standing_rows.h"

namespace infini {
namespace {

Tensor marks(std::int64_t batch, std::int64_t places, Device device) {
  return Tensor::zeros({batch, places}, DType::kUInt8, device);
}
// What is seen of tokens that all stand.
Tensor all_marks(std::int64_t batch, std::int64_t places, Device device) {
  const HeadLayout tokens{.batch = batch, .tokens = places};
  return columns_of(cache_seen({}, {}, {}, tokens, places, device).reshape({batch, 2 * places}),
                    {places, 2 * places});
}
Tensor columns_of_rows(const Tensor& rows, Columns columns) {
  const auto [batch, count, width] = rows.dims<3>();
  return take_columns(rows.reshape({batch * count, width}), columns)
      .reshape({batch, count, columns.end - columns.begin});
}
Tensor flat(const Tensor& rows) {
  const auto [batch, count, width] = rows.dims<3>();
  return rows.reshape({batch * count, width});
}

}  // namespace

// Some rows of each batch row, as attention reads them.
struct FeedbackAttention::Places {
  Tensor queries;  // [B, n, H K], turned
  Tensor keys;     // [B, n, Hk K], turned
  Tensor values;   // [B, n, Hk K]
};

std::int64_t feedback_positions(const ModelConfig& config) {
  return std::max(config.cached_tokens(), config.feedback_tokens());
}

Tensor with_prompt(const Tensor& x, const Tensor& learned, std::int64_t batch) {
  const std::int64_t width = x.shape()[1], tokens = x.shape()[0] / batch,
                     prompt = learned.shape()[0];
  const Tensor none = Tensor::zeros({batch, prompt, width}, x.dtype(), x.device());
  const Tensor rows = standing_rows(none, marks(batch, prompt, x.device()), learned);
  return flat(join_rows({x.reshape({batch, tokens, width}), rows}));
}

Tensor without_prompt(const Tensor& x, std::int64_t prompt, std::int64_t batch) {
  const std::int64_t rows = x.shape()[0] / batch;
  return flat(take_rows(x.reshape({batch, rows, x.shape()[1]}), 0, rows - prompt));
}

void FeedbackAttention::declare(const ModelConfig& config, const std::string& prefix,
                                std::vector<ParameterSpec>& specs) {
  declare_projections(config, prefix, specs);
}

FeedbackAttention::FeedbackAttention(const ModelConfig& config, const Parameters& parameters,
                                     const std::string& prefix, const Tensor& rotary_table,
                                     const TensorGroup* group)
    : architecture_(config.architecture_name()),
      heads_{.heads = config.heads,
             .kv_heads = config.key_value_heads(),
             .head_width = config.head_width()},
      window_(config.cached_tokens()),
      feedback_(config.feedback_tokens()),
      base_(feedback_positions(config)),
      scale_(attention_scale(config)),
      rotary_table_(rotary_table),
      qkv_(parameters.joined(
          {prefix + "query.weight", prefix + "key.weight", prefix + "value.weight"})),
      output_(parameters[prefix + "output.weight"]) {
  check(!group, architecture_, ": ranks cannot share its blocks");
}

FeedbackAttention::Output FeedbackAttention::operator()(const Pass& pass, const Tensor& x,
                                                        const Tensor& residual, const Span& span,
                                                        const MemoryState& memory,
                                                        const BlockRows& block) const {
  return run(pass, x, residual, span, memory, block, true);
}

MemoryState FeedbackAttention::remember(const Pass& pass, const Tensor& x, const Tensor& residual,
                                        const Span& span, const MemoryState& memory,
                                        const BlockRows& block) const {
  return run(pass, x, residual, span, memory, block, false).memory;
}

FeedbackAttention::Output FeedbackAttention::run(const Pass& pass, const Tensor& x,
                                                 const Tensor& residual, const Span& span,
                                                 const MemoryState& memory, const BlockRows& block,
                                                 bool of_tokens) const {
  check(!span.groups, architecture_,
        ": a segment needs the one before it; segments in groups would not have it");
  const HeadLayout& layout = span.layout;
  const std::int64_t batch = layout.batch, segments = layout.segments, tokens = layout.tokens,
                     all = segments * tokens;
  const Device device = x.device();
  const auto by_row = [&](const Tensor& rows) {
    return rows.reshape({batch, all + feedback_, rows.shape()[1]});
  };
  const Tensor qkv = by_row(linear(x, pass(qkv_))),
               prompt = take_rows(by_row(residual), all, feedback_);

  // What each segment finds, and marks that all stand or none does.
  const MemoryState before = given(span, memory, x);
  HeadLayout fed_back = layout;
  fed_back.tokens = feedback_;
  const Tensor window_seen =
      cache_seen(before.present, span.keep, span.borders.resets, layout, window_, device);
  const Tensor feedback_stands =
      cache_seen(before.feedback_present, {}, span.borders.resets, fed_back, feedback_, device);
  const auto marks_at = [&](const Tensor& seen, std::int64_t s) {
    const std::int64_t places = seen.shape()[2];
    return columns_of(seen.reshape({batch, (segments + 1) * places}),
                      {s * places, (s + 1) * places});
  };
  const Tensor every_token = all_marks(batch, tokens, device),
               every_vector = all_marks(batch, feedback_, device),
               kept = span.keep ? span.keep.reshape({batch, all}) : Tensor{};

  Tensor window = before.window, feedback = before.feedback;
  std::vector<Tensor> heads;
  for (std::int64_t s = 0; s < segments; ++s) {
    if (!span.borders.detach.empty() && span.borders.detach[s]) {
      window = window.unwatched();
      feedback = feedback.unwatched();
    }
    const Tensor own_qkv = take_rows(qkv, s * tokens, tokens),
                 stands = marks_at(feedback_stands, s);
    const Places own = places(own_qkv, base_);
    const Tensor found = chosen_rows(feedback, prompt, stands);
    const Tensor found_qkv =
        linear(flat(block.normed(found)), pass(qkv_)).reshape({batch, feedback_, qkv.shape()[2]});
    const Places vectors = places(found_qkv, base_ - feedback_);
    if (of_tokens) {
      const Tensor seen = marks_at(window_seen, s);
      heads.push_back(
          attend(own.queries, {window_places(window), vectors, own},
                 {use_memory_ ? seen : Tensor::zeros_like(seen),
                  use_memory_ ? every_vector : Tensor::zeros_like(every_vector), every_token},
                 true));
    }

    const Tensor asked = places(found_qkv, base_ + tokens - feedback_).queries;
    const Tensor read = attend(
        asked, {vectors, own},
        {every_vector, kept ? columns_of(kept, {s * tokens, (s + 1) * tokens}) : every_token},
        false);
    const Tensor carried = standing_rows(feedback, stands, {});
    feedback = block.feed_forward(linear(flat(read), pass(output_), flat(carried)))
                   .reshape({batch, feedback_, x.shape()[1]});
    const Tensor pairs = columns_of_rows(own_qkv, layout.key_value_columns());
    window = window_ > tokens ? join_rows({take_rows(window, tokens, window_ - tokens), pairs})
                              : take_rows(pairs, tokens - window_, window_);
  }
  const MemoryState after{.window = window,
                          .feedback = feedback,
                          .feedback_present = marks_at(feedback_stands, segments),
                          .present = marks_at(window_seen, segments)};
  if (!of_tokens) return {.y = {}, .memory = after};

  const Places first = places(take_rows(qkv, all, feedback_), base_ - feedback_);
  heads.push_back(attend(first.queries, {first}, {every_vector}, false));
  return {.y = linear(flat(join_rows(heads)), pass(output_), residual), .memory = after};
}

FeedbackAttention::Places FeedbackAttention::places(const Tensor& qkv,
                                                    std::int64_t position) const {
  const auto [batch, count, width] = qkv.dims<3>();
  HeadLayout layout = heads_;
  layout.batch = batch;
  layout.tokens = count;
  const Tensor turned = rotate(flat(qkv), rotary_table_, layout, position)
                            .reshape({batch, count, layout.rotated_width()});
  return {.queries = columns_of_rows(turned, layout.query_columns()),
          .keys = columns_of_rows(turned, layout.key_columns()),
          .values = columns_of_rows(qkv, layout.value_columns())};
}

FeedbackAttention::Places FeedbackAttention::window_places(const Tensor& pairs) const {
  const auto [batch, count, width] = pairs.dims<3>();
  HeadLayout layout = heads_;
  layout.batch = batch;
  layout.tokens = count;
  layout.heads = 0;
  return {.queries = {},
          .keys = rotate(flat(pairs), rotary_table_, layout, base_ - window_)
                      .reshape({batch, count, layout.rotated_width()}),
          .values = columns_of_rows(pairs, layout.value_columns())};
}

Tensor FeedbackAttention::attend(const Tensor& queries, const std::vector<Places>& read,
                                 const std::vector<Tensor>& seen, bool own) const {
  const auto [batch, count, width] = queries.dims<3>();
  HeadLayout layout = heads_;
  layout.batch = batch;
  layout.tokens = count;
  std::vector<Tensor> keys, values;
  for (const Places& places : read) {
    keys.push_back(places.keys);
    values.push_back(places.values);
  }
  return marked_attention(flat(queries), flat(join_rows(keys)), flat(join_rows(values)),
                          join_columns(seen), layout, {.scale = scale_, .own = own})
      .reshape({batch, count, width});
}

MemoryState FeedbackAttention::given(const Span& span, const MemoryState& memory,
                                     const Tensor& x) const {
  const std::int64_t batch = span.layout.batch;
  const Shape window{batch, window_, 2 * std::int64_t{heads_.kv_heads} * heads_.head_width},
      feedback{batch, feedback_, x.shape()[1]};
  if (!memory.window)
    return {.window = Tensor::zeros(window, x.dtype(), x.device()),
            .feedback = Tensor::zeros(feedback, x.dtype(), x.device()),
            .feedback_present = marks(batch, feedback_, x.device()),
            .present = marks(batch, window_, x.device())};
  const auto expect = [&](const char* what, const Tensor& tensor, const Shape& expected) {
    check(tensor.shape() == expected && tensor.dtype() == x.dtype(), architecture_, ": the ", what,
          " is ", tensor.shape(), " in ", tensor.dtype(), ", expected ", expected, " in ",
          x.dtype());
  };
  expect("window", memory.window, window);
  expect("feedback", memory.feedback, feedback);
  return memory;
}

}  // namespace infini
