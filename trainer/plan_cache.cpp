#include "trainer/plan_cache.h"

#include <algorithm>

namespace infini {
namespace {

// tensor/ops/attention_tables.cu
constexpr std::int64_t kTableBytes = std::int64_t{144} << 20;

HeadLayout windows_of(HeadLayout layout, int rate) {
  layout.tokens /= rate;
  return layout;
}

// Closures below keep what their namesakes capture: by `kept = ...`, or by naming it in (void).

}  // namespace

PlannedCache::Output PlannedCache::attend(SizeTape* tape, int layer, const LayerPart& part,
                                          const Sized& x, const HeadLayout& layout,
                                          const SizedState& memory) const {
  if (model_.architecture == Architecture::kCompressiveTransformer) {
    const Compressed found = compress(tape, part, layout, memory);
    const std::int64_t places = model_.context_tokens(),
                       rows = layout.batch * layout.segments * places;
    const Places joined{.context = ops_.make(rows * model_.d_model),
                        .seen = ops_.make_bytes(layout.batch * (layout.segments + 1) * places),
                        .count = places,
                        .rows = rows};
    const Sized qkv = project(tape, part, x, layout);
    const Sized heads = read(tape, part, qkv, joined, layout);
    if (tape) reconstruct(tape, found, layout);
    return {.heads = heads,
            .after = {.cached = found.tokens.rows,
                      .present = found.tokens.present,
                      .compressed = found.compressed.rows,
                      .compressed_present = found.compressed.present},
            .held = {qkv, joined.context, joined.seen, found.tokens.context, found.tokens.seen,
                     found.compressed.context, found.compressed.seen, found.leaving,
                     found.window_seen, found.windows}};
  }
  Output out;
  {
    const Newest tokens = newest_tokens(layout, memory);
    out.held = {project(tape, part, x, layout)};
    const std::int64_t before = model_.cached_tokens(),
                       rows = layout.batch * (before + (layout.segments - 1) * layout.tokens);
    out.heads = read(
        tape, part, out.held[0],
        {.context = tokens.context, .seen = tokens.seen, .count = before, .rows = rows}, layout);
    out.after = {.cached = tokens.rows, .present = tokens.present};
  }
  if (!model_.retrieves(layer)) return out;
  const Newest pairs = newest_pairs(layout, memory);
  out.held.insert(out.held.end(), {pairs.context, pairs.seen});
  out.heads = retrieve(tape, part, out.held[0], pairs, out.heads, layout);
  out.after.pairs = pairs.rows;
  out.after.pairs_present = pairs.present;
  return out;
}

SizedState PlannedCache::remember(int layer, const LayerPart& part, const Sized& x,
                                  const HeadLayout& layout, const SizedState& memory) const {
  if (model_.architecture == Architecture::kCompressiveTransformer) {
    const Compressed found = compress(nullptr, part, layout, memory);
    return {.cached = found.tokens.rows,
            .present = found.tokens.present,
            .compressed = found.compressed.rows,
            .compressed_present = found.compressed.present};
  }
  const Newest tokens = newest_tokens(layout, memory);
  SizedState after{.cached = tokens.rows, .present = tokens.present};
  if (!model_.retrieves(layer)) return after;
  const Sized qkv = project(nullptr, part, x, layout);
  const Newest pairs = newest_pairs(layout, memory);
  after.pairs = pairs.rows;
  after.pairs_present = pairs.present;
  return after;
}

CarriedParts PlannedCache::carried(int layer, std::int64_t rows) const {
  const std::int64_t element = ops_.options().element_bytes, width = model_.d_model,
                     cached = rows * model_.cached_tokens(),
                     pairs = model_.retrieves(layer) ? rows * model_.searched_tokens() : 0,
                     compressed = rows * model_.compressed_rows();
  return {{&SizedState::cached, cached * width * element},
          {&SizedState::present, cached},
          {&SizedState::pairs, pairs * pair_width() * element},
          {&SizedState::pairs_present, pairs},
          {&SizedState::compressed, compressed * width * element},
          {&SizedState::compressed_present, compressed}};
}

PlannedCache::Newest PlannedCache::newest(const HeadLayout& layout, std::int64_t width,
                                          std::int64_t places, const Sized& carried) const {
  const std::int64_t batch = layout.batch, step = (layout.segments - 1) * layout.tokens;
  const Sized before = carried ? carried : ops_.make(batch * places * width);
  Newest result;
  result.context = ops_.make(batch * (places + step) * width);
  result.seen = ops_.make_bytes(batch * (layout.segments + 1) * places);
  result.rows = ops_.make(batch * places * width);
  result.present = ops_.make_bytes(batch * places);
  return result;
}

PlannedCache::Newest PlannedCache::newest_tokens(const HeadLayout& layout,
                                                 const SizedState& memory) const {
  return newest(layout, model_.d_model, model_.cached_tokens(), memory.cached);
}

PlannedCache::Newest PlannedCache::newest_pairs(const HeadLayout& layout,
                                                const SizedState& memory) const {
  const Sized own = ops_.make(layout.rows() * pair_width());
  return newest(layout, pair_width(), model_.searched_tokens(), memory.pairs);
}

Sized PlannedCache::project(SizeTape* tape, const LayerPart& part, const Sized& x,
                            const HeadLayout& layout) const {
  return ops_.linear(
      tape, x, part({"attention.query.weight", "attention.key.weight", "attention.value.weight"}),
      layout.rows(), model_.d_model, layout.qkv_width(), Split::kNone);
}

// On a GPU scores lie in memory as tables of one size: those of content and of distances in the
// accumulator, and probabilities; backward also their gradients. What is packed and made of a
// chunk's rows is small beside them.
Sized PlannedCache::read(SizeTape* tape, const LayerPart& part, const Sized& qkv,
                         const Places& places, const HeadLayout& layout) const {
  const std::int64_t width = model_.d_model, keys = pair_width() / 2,
                     distances = places.count + layout.tokens;
  const Sized cached =
      ops_.linear(tape, places.context, part({"attention.key.weight", "attention.value.weight"}),
                  places.rows, width, 2 * keys, Split::kNone);
  const Sized distance_keys = ops_.linear(tape, {}, part({"attention.position.weight"}), distances,
                                          width, keys, Split::kNone);
  const std::int64_t scores = layout.rows() * layout.heads * distances;
  const auto tables = [this, scores](int full, int narrow) {
    const PlannedOps::Options& options = ops_.options();
    const std::int64_t elements =
        ops_.on_gpu() ? std::min(scores, kTableBytes / options.full_bytes) : 0;
    return std::pair(ops_.workspace(full * elements * options.full_bytes),
                     ops_.workspace(narrow * elements * options.element_bytes));
  };
  Sized y = ops_.make(layout.rows() * layout.query_width());
  tables(2, 1);
  if (!tape) return y;
  const auto backward = [=, this, rows = places.rows, kept = qkv.block, context = cached.block,
                         seen = places.seen.block](const auto&, const auto& gradients) {
    const auto dqkv = gradients.of(0), dcached = gradients.of(1), dkeys = gradients.of(2);
    const auto held = tables(3, 3);
    const std::int64_t full = ops_.options().full_bytes;
    const std::int64_t sums =
        ops_.on_gpu() ? rows * 2 * keys + 2 * layout.batch * layout.segments * layout.query_width()
                      : layout.batch * (distances * keys + 2 * layout.query_width());
    ops_.workspace(sums * full);
    (void)distance_keys;
  };
  tape->push({&y},
             {qkv, cached, distance_keys, part({"attention.content_bias"}),
              part({"attention.position_bias"})},
             backward);
  return y;
}

Sized PlannedCache::retrieve(SizeTape* tape, const LayerPart& part, const Sized& qkv,
                             const Newest& pairs, const Sized& local,
                             const HeadLayout& layout) const {
  const std::int64_t rows = layout.rows(), heads = layout.heads;
  const Sized chosen = ops_.make_bytes(4 * rows * heads * model_.neighbours);
  Sized y = ops_.make(rows * layout.query_width());
  if (tape)
    tape->push({&y}, {qkv, part({"attention.retrieval_scale"}), part({"attention.gate"}), local},
               [=, this, kept = qkv.block, from = local.block](const auto&, const auto& gradients) {
                 const auto dqkv = gradients.of(0), dlocal = gradients.of(3);
                 const std::int64_t sums = ops_.on_gpu() ? rows : layout.batch * layout.segments;
                 ops_.workspace(2 * sums * heads * ops_.options().full_bytes);
                 (void)chosen, (void)pairs;
               });
  return y;
}

PlannedCache::Compressed PlannedCache::compress(SizeTape* tape, const LayerPart& part,
                                                const HeadLayout& layout,
                                                const SizedState& memory) const {
  const int rate = model_.compression_rate;
  const std::int64_t width = model_.d_model;
  const HeadLayout of_windows = windows_of(layout, rate);
  const std::int64_t rows = of_windows.rows();
  Compressed result;
  result.tokens = newest_tokens(layout, memory);
  result.leaving = ops_.make(rows * rate * width);
  result.window_seen = ops_.make_bytes(rows);
  result.windows = model_.compression == Compression::kConvolution && rows > 0
                       ? ops_.linear(tape, result.leaving, part({"attention.compression.weight"}),
                                     rows, rate * width, width, Split::kNone)
                       : ops_.make(rows * width);
  result.compressed = newest(of_windows, width, model_.compressed_rows(), memory.compressed);
  return result;
}

void PlannedCache::reconstruct(SizeTape* tape, const Compressed& memory,
                               const HeadLayout& layout) const {
  const int rate = model_.compression_rate;
  const std::int64_t rows = windows_of(layout, rate).rows(), width = model_.d_model;
  if (model_.compression != Compression::kConvolution || model_.reconstruction_weight == 0 ||
      rows == 0)
    return;
  const Sized seen = ops_.make_bytes(rows * rate);
  const Sized tokens = ops_.linear(nullptr, memory.leaving, {}, rows * rate, width, pair_width(),
                                   Split::kNone),
              pairs =
                  ops_.linear(tape, memory.windows, {}, rows, width, pair_width(), Split::kNone);
  Sized loss, drows;
  {
    const Sized whole = ops_.make_full(layout.rows() * layout.query_width()),
                lost = ops_.make_full(layout.rows() * layout.query_width());
    loss = ops_.make_full(1);
    if (pairs.tape) drows = ops_.make(rows * pair_width());
  }
  tape->push({&loss}, {pairs}, [drows](const auto&, const auto& gradients) { gradients.of(0); });
  if (loss.tape) tape->seed(loss);
}

}  // namespace infini
