// Ranks that each take some segments of every row compute what one rank computes with all of them.
#include "model/segment_groups.h"

#include "tests/model/tiny_model.h"
#include "tests/mpi/ranks.h"
#include "trainer/rank_exchange.h"

namespace infini {
namespace {

// Eight segments of 5 tokens: resets at the first segment of a group, inside groups and twice in
// one, padding, weights, targets that do not count.
Rows eight_segments() {
  Rows rows = rows_of(40);
  for (std::int64_t i = 3; i < 80; i += 9) rows.targets.data<std::int32_t>()[i] = -1;
  std::vector<float> weights(80);
  for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = 0.25f * static_cast<float>(i % 5);
  rows.weights = Tensor::of(weights, {2, 40});
  rows.resets =
      Tensor::of(std::vector<std::uint8_t>{0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0}, {2, 8});
  std::vector<std::uint8_t> keep(80, 1);
  for (const int padded : {3, 4, 26, 27, 40 + 14, 40 + 39}) keep[padded] = 0;
  rows.keep = Tensor::of(keep, {2, 40});
  return rows;
}

Rows group_of(const Rows& rows, const SegmentExchange& exchange) {
  const std::int64_t tokens = rows.row_tokens() / exchange.groups();
  Rows part = part_of(rows, exchange.index() * tokens, tokens);
  part.exchange = &exchange;
  if (!rows.resets) return part;
  const std::int64_t batch = rows.batch(), each = rows.segments() / exchange.groups();
  std::vector<std::uint8_t> any(batch * exchange.groups());
  for (std::int64_t i = 0; i < rows.resets.size(); ++i)
    any[i / each] |= rows.resets.data<std::uint8_t>()[i];
  part.group_resets = Tensor::of(any, {batch, exchange.groups()});
  return part;
}

struct Trained {
  double loss = 0;
  std::vector<double> gradients;
  Memories after, dmemory;
};

Trained train(const Tiny& tiny, const Rows& rows, const RecurrenceOptions& options,
              const Communicator& ranks) {
  InfiniTransformer model = model_of(tiny);
  const Memories memory = tiny.memory == MemoryRule::kNone
                              ? empty_memories(model.config())
                              : random_memories(model.config(), rows.batch(), DType::kFloat64);
  Trained trained;
  const RowsResult result =
      Recurrence(model, options).train(rows, memory, 0.1, {}, &trained.dmemory);
  ranks.all_reduce(model.parameters().gradients());
  trained.loss = ranks.sum({result.loss.item()})[0];
  trained.gradients = model.parameters().gradients().to_vector<double>();
  trained.after = result.memory;
  return trained;
}

TEST(SegmentGroups, OnRanksGiveTheGradientOfWholeRows) {
  for (const int count : {2, 4}) {
    Communicator ranks;
    if (count > test_world().size() || !first_ranks(count, ranks)) continue;
    const RankExchange exchange(ranks);
    for (const Tiny& tiny : shared_tinies())
      for (const Rows& rows : {rows_of(40), eight_segments()})
        for (const std::int64_t horizon : {0, 1, 2, 3, 5})
          for (const bool recompute : {false, true}) {
            SCOPED_TRACE(text(count, " ranks, ", name_of(tiny), ", horizon ", horizon));
            const RecurrenceOptions options{.gradient_horizon = horizon,
                                            .recompute_blocks = recompute};
            const Trained whole = train(tiny, rows, options, {});
            const Trained parts = train(tiny, group_of(rows, exchange), options, ranks);
            EXPECT_NEAR(parts.loss / whole.loss, 1, 1e-12);
            EXPECT_LE(relative_error(parts.gradients, whole.gradients), 1e-12);
            expect_near(parts.after, whole.after, 1e-12);
            expect_near(parts.dmemory, whole.dmemory, 1e-12);
          }
  }
}

// Counts what goes over the exchange.
class Counting final : public SegmentExchange {
 public:
  explicit Counting(const Communicator& ranks) : exchange_(ranks) {}
  int groups() const override { return exchange_.groups(); }
  int index() const override { return exchange_.index(); }
  Tensor gather(const Tensor& mine) const override {
    ++calls;
    bytes += mine.bytes();
    return exchange_.gather(mine);
  }
  mutable std::int64_t calls = 0, bytes = 0;

 private:
  RankExchange exchange_;
};

TEST(SegmentGroups, ExchangeAsMuchForLongRowsAsForShortOnes) {
  const Communicator all(test_world());
  for (const MemoryRule rule : {MemoryRule::kLinear, MemoryRule::kDelta}) {
    const Counting exchange(all);
    const Tiny tiny{.memory = rule};
    train(tiny, group_of(rows_of(20), exchange), {}, all);
    const std::int64_t calls = exchange.calls, bytes = exchange.bytes;
    train(tiny, group_of(rows_of(200), exchange), {}, all);
    EXPECT_EQ(exchange.calls, 2 * calls);
    EXPECT_EQ(exchange.bytes, 2 * bytes);
    // Two layers, forward and backward; the delta rule sends sums of keys before its maps.
    EXPECT_EQ(calls, rule == MemoryRule::kLinear ? 4 : 8);
  }
}

}  // namespace
}  // namespace infini
