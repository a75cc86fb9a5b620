// What tests of training on several ranks share.
#pragma once

#include <algorithm>
#include <set>

#include "distributed/layout.h"
#include "tests/mpi/ranks.h"
#include "tests/trainer/tiny_run.h"

namespace infini {

struct Result {
  std::vector<double> losses, norms, masters;
  friend bool operator==(const Result& a, const Result& b) {
    return a.losses == b.losses && a.norms == b.norms && a.masters == b.masters;
  }
};

class OnRanks : public ::testing::Test {
 protected:
  // Every rank has a store of its own with the same documents.
  static Training training_on(const Communicator& ranks, const std::vector<std::string>& overrides,
                              const std::shared_ptr<const TokenStore>& store) {
    const RunConfig config = tiny_config(overrides);
    auto source = make_source(config.data, config.model.segment_tokens,
                              static_cast<std::uint64_t>(config.seed), config.train.steps, store,
                              std::max(config.parallel.segment, config.parallel.segment_leaves));
    return Training(config, std::move(source), store->tokenizer().serialise(),
                    make_layout(ranks, config.parallel));
  }
  // Of all parameters, as those ranks have them that save them.
  static std::vector<double> masters_of(Training& training) {
    const Parameters& parameters = training.model().parameters();
    std::vector<double> masters(static_cast<std::size_t>(parameters.count()));
    std::set<std::string> saved;
    for (const NamedBuffer& buffer : training.contents().buffers) saved.insert(buffer.name);
    for (const Parameter& parameter : parameters.all())
      if (saved.contains(parameter.name))
        std::ranges::copy(parameter.master.to_vector<double>(), masters.begin() + parameter.offset);
    return training.layout().all.sum(masters);
  }
  Result run(const Communicator& ranks, const std::vector<std::string>& overrides, int steps) {
    Training training = training_on(ranks, overrides, store_);
    Result result;
    for (int i = 0; i < steps; ++i) {
      const StepReport report = training.step();
      result.losses.push_back(report.loss);
      result.norms.push_back(report.gradient_norm);
    }
    result.masters = masters_of(training);
    return result;
  }
  // On 1 rank, 2 and as many as there are; `check(result, that of one rank)`.
  template <class Check>
  void compare(const std::vector<std::string>& overrides, Check check, int steps = 6) {
    const Result one = run(Communicator(), overrides, steps);
    for (const int count : {2, 4}) {
      if (count > test_world().size()) continue;
      SCOPED_TRACE(text(count, " ranks, ", ::testing::PrintToString(overrides)));
      Communicator group;
      if (first_ranks(count, group)) check(run(group, overrides, steps), one);
    }
  }

  TempFolder folder_;
  std::shared_ptr<const TokenStore> store_ = tiny_store(folder_ / "data", kTinyLengths);
};

inline void expect_equal(const Result& ranks, const Result& one) { EXPECT_TRUE(ranks == one); }
inline void expect_close(const Result& ranks, const Result& one) {
  EXPECT_LE(relative_error(ranks.losses, one.losses), 1e-6);
  EXPECT_LE(relative_error(ranks.norms, one.norms), 1e-6);
  EXPECT_LE(relative_error(ranks.masters, one.masters), 1e-6);
}

}  // namespace infini
