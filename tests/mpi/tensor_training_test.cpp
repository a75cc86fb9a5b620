// Training with blocks that ranks share gives what training on one rank gives: losses, every
// parameter and every state of the optimizer.
#include <gmock/gmock.h>

#include <map>

#include "distributed/layout.h"
#include "tests/mpi/ranks.h"
#include "tests/trainer/tiny_run.h"
#include "trainer/perplexity.h"

namespace infini {
namespace {

using Values = std::map<std::string, std::vector<double>>;

struct Outcome {
  std::vector<double> losses, norms;
  Values held;  // by a checkpoint
};

// Heads of 4, two of them to a key head in the grouped form; 260 token ids. Rows are cut into
// documents, and one part of a step's rows after the other is taken.
const std::vector<std::string> kBase = {"model.heads=8", "model.d_head=4", "model.vocabulary=260",
                                        "optim.learning_rate=0.01", "train.compute=fp64"};
constexpr double kRounding = 1e-10;

std::vector<std::string> with(std::vector<std::string> overrides,
                              const std::vector<std::string>& more) {
  overrides.insert(overrides.end(), more.begin(), more.end());
  return overrides;
}

class SharedBlocks : public ::testing::Test {
 protected:
  Training training_on(const Communicator& ranks, const std::vector<std::string>& overrides) {
    const RunConfig config = tiny_config(overrides);
    auto source = make_source(config.data, config.model.segment_tokens,
                              static_cast<std::uint64_t>(config.seed), config.train.steps, store_);
    return Training(config, std::move(source), store_->tokenizer().serialise(),
                    make_layout(ranks, config.parallel));
  }
  // What a checkpoint of all ranks holds, put together from their parts; `names` and sizes as one
  // rank has them.
  static Values held_by(Training& training, const Values& shapes) {
    Values values = shapes;
    for (auto& [name, elements] : values) std::ranges::fill(elements, 0);
    for (const NamedBuffer& buffer : training.contents().buffers) {
      if (!is_number(buffer)) continue;
      const Tensor stored = Tensor::empty(
          Shape(buffer.shape), buffer.dtype == "f64" ? DType::kFloat64 : DType::kFloat32);
      std::memcpy(stored.raw(), buffer.data, buffer.bytes);
      const std::vector<double> part = stored.to_vector<double>();
      std::vector<double>& whole = values.at(buffer.name);
      const std::vector<std::int64_t> extents = buffer.info().whole_shape();
      for (std::int64_t i = 0; i < stored.size(); ++i) {
        std::int64_t place = 0, rest = i, stride = stored.size();
        for (std::size_t axis = 0; axis < extents.size(); ++axis) {
          stride /= buffer.shape[axis];
          place = place * extents[axis] + rest / stride +
                  (buffer.begin.empty() ? 0 : buffer.begin[axis]);
          rest %= stride;
        }
        whole.at(static_cast<std::size_t>(place)) += part[i];
      }
    }
    for (auto& [name, elements] : values) elements = training.layout().all.sum(elements);
    return values;
  }
  static Values shapes_of(Training& whole) {
    Values shapes;
    for (const NamedBuffer& buffer : whole.contents().buffers)
      if (is_number(buffer))
        shapes[buffer.name].resize(buffer.bytes / (buffer.dtype == "f64" ? 8 : 4));
    return shapes;
  }
  static bool is_number(const NamedBuffer& buffer) { return buffer.dtype[0] == 'f'; }
  static void take_steps(Training& training, int steps, Outcome& outcome) {
    for (int i = 0; i < steps; ++i) {
      const StepReport report = training.step();
      outcome.losses.push_back(report.loss);
      outcome.norms.push_back(report.gradient_norm);
    }
  }
  static void expect_close(const Outcome& ranks, const Outcome& one, double tolerance) {
    EXPECT_LE(relative_error(ranks.losses, one.losses), tolerance);
    EXPECT_LE(relative_error(ranks.norms, one.norms), tolerance);
    for (const auto& [name, values] : one.held) {
      if (tolerance > kRounding && name.starts_with("optimizer/")) continue;
      EXPECT_LE(relative_error(ranks.held.at(name), values), tolerance) << name;
    }
  }
  // The first ranks with these axes against one rank.
  void compare(int count, const std::vector<std::string>& overrides,
               const std::vector<std::string>& axes, int steps = 4, double tolerance = kRounding) {
    Communicator group;
    if (count > test_world().size() || !first_ranks(count, group)) return;
    SCOPED_TRACE(text(::testing::PrintToString(overrides), ::testing::PrintToString(axes)));
    Outcome one, shared;
    Training whole = training_on(Communicator(), overrides);
    const Values shapes = shapes_of(whole);
    take_steps(whole, steps, one);
    one.held = held_by(whole, shapes);
    Training part = training_on(group, with(overrides, axes));
    take_steps(part, steps, shared);
    shared.held = held_by(part, shapes);
    expect_close(shared, one, tolerance);
  }

  TempFolder folder_;
  std::shared_ptr<const TokenStore> store_ = tiny_store(folder_ / "data", kTinyLengths);
};

TEST_F(SharedBlocks, GiveWhatOneRankGives) {
  for (const char* optimizer : {"adafactor", "adamw"})
    for (const char* memory : {"linear", "delta"})
      for (const int ranks : {2, 4})
        compare(ranks,
                with(kBase, {text("optim.kind=", optimizer), text("model.memory=", memory),
                             "model.kv_heads=4", "data.sampler=lanes"}),
                {text("parallel.tensor=", ranks)});
}

TEST_F(SharedBlocks, AreWithinRoundingInSinglePrecision) {
  for (const int ranks : {2, 4})
    compare(ranks, with(kBase, {"train.compute=fp32", "optim.kind=adafactor"}),
            {text("parallel.tensor=", ranks)}, 4, 1e-6);
}

// Norms and their states are updated by every rank for itself.
TEST_F(SharedBlocks, KeepWhatAllHaveTheSameToTheLastBit) {
  const Communicator all(test_world());
  for (const char* compute : {"fp32", "bf16"})
    for (const char* optimizer : {"adafactor", "adamw"}) {
      SCOPED_TRACE(text(compute, " ", optimizer));
      Training training = training_on(
          all, with(kBase, {text("train.compute=", compute), text("optim.kind=", optimizer),
                            "optim.clip_norm=0.1", text("parallel.tensor=", all.size())}));
      for (int i = 0; i < 4; ++i) training.step();
      const std::vector<double> masters =
          training.model().parameters()["final_norm.weight"].master.to_vector<double>();
      EXPECT_NE(masters, std::vector<double>(masters.size(), 1));
      for (const Parameter& parameter : training.model().parameters().all()) {
        if (parameter.division.is_part()) continue;
        const Tensor mine = parameter.master.reshape({parameter.master.size()});
        const Tensor each = gathered(all, mine);
        for (int p = 0; p < all.size(); ++p)
          EXPECT_EQ(std::memcmp(each.slice(p, 1).raw(), mine.raw(), mine.bytes()), 0)
              << parameter.name;
      }
    }
}

TEST_F(SharedBlocks, GiveTheSameInEverySchedule) {
  for (const auto& choice : std::vector<std::vector<std::string>>{
           {"train.schedule=streaming", "data.row_tokens=64", "train.segments_per_tape=2"},
           {"train.recompute_blocks=true", "model.activation=swiglu", "model.tied=false"},
           {"train.accumulate=2", "model.activation=relu"},
           {"parallel.row_leaves=2", "model.memory=none"}})
    for (const int ranks : {2, 4})
      compare(ranks, with(kBase, choice), {text("parallel.tensor=", ranks)});
}

// Adafactor's means, its relative rates, and parameters of every kind: factored or not as a whole,
// though parts are smaller than adafactor.factored_from.
TEST_F(SharedBlocks, MeasureWholeParameters) {
  for (const char* from : {"2", "16", "33", "1000"})
    for (const char* clip : {"1", "0.01"})
      compare(test_world().size(),
              with(kBase, {text("optim.adafactor.factored_from=", from),
                           text("optim.adafactor.clip_threshold=", clip), "optim.clip_norm=0.1",
                           "optim.weight_decay=0.1"}),
              {text("parallel.tensor=", test_world().size())});
}

TEST_F(SharedBlocks, CombineWithRowsSegmentsAndDividedState) {
  for (const char* optimizer : {"adafactor", "adamw"})
    for (const char* shard : {"none", "optimizer"})
      compare(4, with(kBase, {text("optim.kind=", optimizer), "data.sampler=lanes"}),
              {"parallel.tensor=2", text("parallel.shard=", shard)});
  for (const char* memory : {"linear", "delta"})
    for (const char* shard : {"none", "optimizer"})
      compare(4,
              with(kBase, {text("model.memory=", memory), "data.row_tokens=32",
                           "data.sampler=lanes", "model.kv_heads=2"}),
              {"parallel.tensor=2", "parallel.segment=2", text("parallel.shard=", shard)});
}

TEST_F(SharedBlocks, CombineWithDividedGradientsAndParameters) {
  for (const char* shard : {"gradients", "parameters"})
    for (const char* schedule : {"parallel", "streaming"})
      for (const char* tied : {"true", "false"})
        compare(4,
                with(kBase, {"train.recompute_blocks=true", text("train.schedule=", schedule),
                             text("model.tied=", tied), "data.sampler=lanes"}),
                {"parallel.tensor=2", text("parallel.shard=", shard)});
  for (const char* memory : {"linear", "delta"})
    compare(4,
            with(kBase, {"train.recompute_blocks=true", text("model.memory=", memory),
                         "data.row_tokens=32", "optim.kind=adamw"}),
            {"parallel.tensor=2", "parallel.segment=2", "parallel.shard=parameters"});
}

TEST_F(SharedBlocks, GoOnOnAnyOtherRanks) {
  const Communicator all(test_world());
  const std::vector<std::string> base = with(kBase, {"data.sampler=lanes", "model.kv_heads=4"});
  Outcome one;
  Training whole = training_on(Communicator(), base);
  const Values shapes = shapes_of(whole);
  take_steps(whole, 4, one);
  one.held = held_by(whole, shapes);

  const std::string folder = all.from_first((folder_ / "run").string());
  const auto save = [&](Training& training, const Communicator& ranks) {
    save_checkpoint(folder, training.steps_done(), training.contents(),
                    {.rank = ranks.rank(), .ranks = ranks.size(), .all_agree = [&](bool mine) {
                       return ranks.all_agree(mine);
                     }});
  };
  const auto resume = [&](Training& training, const Communicator& ranks) {
    const Checkpoint checkpoint = *find_latest(folder, ranks.rank(), ranks.size());
    ranks.all_agree(true);
    training.resume(checkpoint);
  };
  struct Run {
    int ranks;
    std::vector<std::string> axes;
  };
  const Run alone{1, {}}, by_rows{2, {"parallel.data=2"}}, shared{2, {"parallel.tensor=2"}};
  std::vector<std::pair<Run, Run>> changes{
      {shared, alone}, {alone, shared}, {shared, by_rows}, {by_rows, shared}};
  if (all.size() == 4) {
    const Run four{4, {"parallel.tensor=4"}};
    const Run divided{4, {"parallel.tensor=2", "parallel.shard=optimizer"}};
    const Run lent{
        4, {"parallel.tensor=2", "parallel.shard=parameters", "train.recompute_blocks=true"}};
    changes.insert(changes.end(),
                   {{four, divided}, {divided, lent}, {lent, alone}, {shared, four}});
  }
  for (const auto& [before, after] : changes) {
    SCOPED_TRACE(text(::testing::PrintToString(before.axes), " then ",
                      ::testing::PrintToString(after.axes)));
    Outcome outcome;
    Communicator group;
    if (first_ranks(before.ranks, group)) {
      Training training = training_on(group, with(base, before.axes));
      take_steps(training, 2, outcome);
      save(training, group);
    }
    all.all_agree(true);
    // Ranks that took no part before have no losses of the first steps.
    const bool had_part = !outcome.losses.empty();
    if (first_ranks(after.ranks, group)) {
      Training training = training_on(group, with(base, after.axes));
      resume(training, group);
      EXPECT_EQ(training.steps_done(), 2);
      take_steps(training, 2, outcome);
      outcome.held = held_by(training, shapes);
      if (had_part) expect_close(outcome, one, kRounding);
    }
    all.all_agree(true);
  }
}

TEST_F(SharedBlocks, AllSkipAStepThatOneCannotTake) {
  const Communicator all(test_world());
  Training training =
      training_on(all, with(kBase, {text("parallel.tensor=", all.size()), "data.sampler=lanes"}));
  training.step();
  const Tensor& masters = training.model().parameters().masters();
  const std::vector<double> before = masters.to_vector<double>();
  if (all.rank() == all.size() - 1) masters.data<double>()[5] = NAN;
  EXPECT_TRUE(training.step().skipped);
  masters.data<double>()[5] = before[5];
  EXPECT_EQ(masters.to_vector<double>(), before);
  EXPECT_FALSE(training.step().skipped);
}

TEST_F(SharedBlocks, AreMeasuredTogether) {
  const Communicator all(test_world());
  Training whole = training_on(Communicator(), kBase);
  Training shared = training_on(all, with(kBase, {"parallel.tensor=2"}));
  const PerplexityReport one = measure_perplexity(whole.model(), *store_, {});
  const Communicator& copies = shared.layout().replicas;
  const PerplexityReport sum =
      over_ranks(measure_perplexity(shared.model(), *store_,
                                    {.share = copies.rank(), .shares = copies.size()}),
                 copies);
  EXPECT_EQ(sum.tokens, one.tokens);
  EXPECT_EQ(sum.documents, one.documents);
  EXPECT_NEAR(sum.token_perplexity() / one.token_perplexity(), 1, 1e-6);
}

TEST_F(SharedBlocks, AreRefusedWhereTheyDoNotDivide) {
  const Communicator all(test_world());
  const auto refusal = [&](const std::vector<std::string>& overrides) {
    return message_of<ConfigError>(
        [&] { training_on(all, with(with(kBase, {"parallel.tensor=2"}), overrides)); });
  };
  using ::testing::HasSubstr;
  EXPECT_THAT(refusal({"model.heads=3"}),
              HasSubstr("model.heads = 3 is not divisible by parallel.tensor = 2"));
  EXPECT_THAT(refusal({"model.kv_heads=1"}),
              HasSubstr("model.kv_heads = 1 is not divisible by parallel.tensor = 2"));
  EXPECT_THAT(refusal({"model.feed_forward=33"}),
              HasSubstr("model.feed_forward = 33 is not divisible by parallel.tensor = 2"));
  EXPECT_THAT(refusal({"model.vocabulary=261"}),
              HasSubstr("model.vocabulary = 261 is not divisible by parallel.tensor = 2"));
}

}  // namespace
}  // namespace infini
