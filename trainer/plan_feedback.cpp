#include "trainer/plan_feedback.h"

namespace infini {

PlannedFeedback::Output PlannedFeedback::attend(SizeTape* tape, const LayerPart& part,
                                                const Sized& x, const Sized& residual,
                                                const HeadLayout& layout, const SizedState& memory,
                                                const BlockRows& block, bool of_tokens) const {
  const std::int64_t batch = layout.batch, segments = layout.segments, tokens = layout.tokens,
                     width = model_.d_model, all = layout.qkv_width(), fed = batch * vectors();
  const auto project = [&](const Sized& from, std::int64_t count) {
    return ops_.linear(
        tape, from,
        part({"attention.query.weight", "attention.key.weight", "attention.value.weight"}), count,
        width, all, Split::kNone);
  };
  const auto output = [&](const Sized& from, std::int64_t count, const Sized& to) {
    return ops_.linear(tape, from, part({"attention.output.weight"}), count, queries(), width,
                       Split::kNone, to);
  };
  const Sized qkv = project(x, rows(layout)),
              prompt = ops_.take_columns(tape, residual, fed * width);
  const SizedState before = given(memory, batch);
  const Sized window_seen = ops_.make_bytes(batch * (segments + 1) * window()),
              stands = ops_.make_bytes(batch * (segments + 1) * vectors()),
              every = ops_.make_bytes(batch * (tokens + vectors()));

  Sized carried_window = before.window, feedback = before.feedback;
  std::vector<Sized> heads;
  for (std::int64_t s = 0; s < segments; ++s) {
    const Sized own_qkv = ops_.take_columns(tape, qkv, batch * tokens * all);
    const Places own = places(tape, own_qkv, batch, tokens);
    const Sized found = ops_.rows_chosen(tape, feedback, fed * width, prompt);
    const Sized found_qkv = project(block.normed(found, fed), fed);
    const Places given_vectors = places(tape, found_qkv, batch, vectors());
    if (of_tokens)
      heads.push_back(attend_to(tape, own.queries, tokens,
                                {window_places(tape, carried_window, batch), given_vectors, own},
                                batch));
    const Sized asked = places(tape, found_qkv, batch, vectors()).queries;
    const Sized read = attend_to(tape, asked, vectors(), {given_vectors, own}, batch);
    const Sized carried = ops_.rows_chosen(tape, feedback, fed * width);
    feedback = block.feed_forward(output(read, fed, carried), fed);
    const Sized pairs = ops_.take_columns(tape, own_qkv, batch * tokens * 2 * keys());
    const std::int64_t pair = batch * 2 * keys();
    carried_window =
        window() > tokens
            ? ops_.join_columns(
                  tape,
                  {ops_.take_columns(tape, carried_window, (window() - tokens) * pair), pairs},
                  batch)
            : ops_.take_columns(tape, pairs, window() * pair);
  }
  Output out{.heads = {},
             .after = {.present = ops_.make_bytes(batch * window()),
                       .window = carried_window,
                       .feedback = feedback,
                       .feedback_present = ops_.make_bytes(fed)},
             .held = qkv};
  if (!of_tokens) return out;
  const Places first = places(tape, ops_.take_columns(tape, qkv, fed * all), batch, vectors());
  heads.push_back(attend_to(tape, first.queries, vectors(), {first}, batch));
  out.heads = ops_.join_columns(tape, heads, batch);
  return out;
}

Sized PlannedFeedback::with_prompt(SizeTape* tape, const Sized& x, const Sized& learned,
                                   const HeadLayout& layout) const {
  const std::int64_t elements = layout.batch * vectors() * model_.d_model;
  const Sized none = ops_.make(elements);
  const Sized rows = ops_.rows_chosen(tape, none, elements, learned);
  return ops_.join_columns(tape, {x, rows}, layout.batch);
}

Sized PlannedFeedback::without_prompt(SizeTape* tape, const Sized& x,
                                      const HeadLayout& layout) const {
  return ops_.take_columns(tape, x, layout.rows() * model_.d_model);
}

CarriedParts PlannedFeedback::carried(std::int64_t rows) const {
  const std::int64_t element = ops_.options().element_bytes;
  return {{&SizedState::window, rows * window() * 2 * keys() * element},
          {&SizedState::feedback, rows * vectors() * model_.d_model * element},
          {&SizedState::feedback_present, rows * vectors()},
          {&SizedState::present, rows * window()}};
}

Sized PlannedFeedback::rotated(SizeTape* tape, const Sized& qkv, std::int64_t rows,
                               std::int64_t width) const {
  Sized turned = ops_.make(rows * width);
  if (tape)
    tape->push({&turned}, {qkv}, [](const auto&, const auto& gradients) { gradients.of(0); });
  return turned;
}

PlannedFeedback::Places PlannedFeedback::places(SizeTape* tape, const Sized& qkv,
                                                std::int64_t batch, std::int64_t count) const {
  const std::int64_t rows = batch * count;
  const Sized turned = rotated(tape, qkv, rows, queries() + keys());
  return {.queries = ops_.take_columns(tape, turned, rows * queries()),
          .keys = ops_.take_columns(tape, turned, rows * keys()),
          .values = ops_.take_columns(tape, qkv, rows * keys()),
          .count = count};
}

PlannedFeedback::Places PlannedFeedback::window_places(SizeTape* tape, const Sized& pairs,
                                                       std::int64_t batch) const {
  const std::int64_t rows = batch * window();
  return {.queries = {},
          .keys = rotated(tape, pairs, rows, keys()),
          .values = ops_.take_columns(tape, pairs, rows * keys()),
          .count = window()};
}

Sized PlannedFeedback::attend_to(SizeTape* tape, const Sized& asking, std::int64_t count,
                                 const std::vector<Places>& read, std::int64_t batch) const {
  std::vector<Sized> all_keys, all_values;
  std::int64_t places = 0;
  for (const Places& each : read) {
    all_keys.push_back(each.keys);
    all_values.push_back(each.values);
    places += each.count;
  }
  const Sized joined_keys = ops_.join_columns(tape, all_keys, batch),
              joined_values = ops_.join_columns(tape, all_values, batch),
              seen = ops_.make_bytes(batch * places);
  Sized y = ops_.make(batch * count * queries());
  if (tape)
    tape->push({&y}, {asking, joined_keys, joined_values},
               [from = asking.block, first = joined_keys.block, second = joined_values.block, seen](
                   const auto&, const auto& gradients) {
                 const auto dqueries = gradients.of(0), dkeys = gradients.of(1),
                            dvalues = gradients.of(2);
               });
  return y;
}

SizedState PlannedFeedback::given(const SizedState& memory, std::int64_t batch) const {
  if (memory.window) return memory;
  return {.present = ops_.make_bytes(batch * window()),
          .window = ops_.make(batch * window() * 2 * keys()),
          .feedback = ops_.make(batch * vectors() * model_.d_model),
          .feedback_present = ops_.make_bytes(batch * vectors())};
}

}  // namespace infini
