#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <limits>

#include "trainer/config_reader.h"
#include "trainer/config_writer.h"

namespace infini {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

enum class Rule { kLinear, kDelta };
constexpr auto enum_names(Rule) {
  return std::array{std::pair{std::string_view{"linear"}, Rule::kLinear},
                    std::pair{std::string_view{"delta"}, Rule::kDelta}};
}

struct GroupConfig {
  std::string pattern = "*";
  double rate = 1;
  template <class Visitor>
  void visit(Visitor& field) {
    field("pattern", pattern, "which parameters");
    field("rate", rate, "relative learning rate");
  }
  bool operator==(const GroupConfig&) const = default;
};

struct OptimConfig {
  double peak_rate = 3e-4;
  std::vector<double> betas{0.9, 0.95};
  std::vector<GroupConfig> groups;
  template <class Visitor>
  void visit(Visitor& field) {
    field("peak_rate", peak_rate, "learning rate at the end of warm-up");
    field("betas", betas, "decay of both moments");
    field("groups", groups, "parameters with rates of their own");
  }
  void validate() const {
    check(peak_rate > 0, "optim.peak_rate must be positive, got ", peak_rate);
  }
  bool operator==(const OptimConfig&) const = default;
};

struct RunConfig {
  std::string run = "runs/first";
  bool resume = false;
  int threads = 2;
  std::int64_t tokens = 1'000'000;
  Rule rule = Rule::kLinear;
  std::vector<Rule> rules;
  std::vector<bool> flags;
  OptimConfig optim;
  template <class Visitor>
  void visit(Visitor& field) {
    field("run", run, "folder of the run");
    field("resume", resume, "go on from the newest checkpoint");
    field("threads", threads, "CPU threads");
    field("tokens", tokens, "tokens to train on");
    field("rule", rule, "how the memory is written");
    field("rules", rules, "");
    field("flags", flags, "");
    field("optim", optim, "");
  }
  bool operator==(const RunConfig&) const = default;
};

RunConfig read(std::string_view yaml, const std::vector<std::string>& overrides = {}) {
  return read_config_text<RunConfig>(yaml, "run.yaml", overrides);
}

std::string refusal(std::string_view yaml, const std::vector<std::string>& overrides = {}) {
  try {
    read(yaml, overrides);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Config, AbsentKeysKeepTheirDefaults) {
  EXPECT_EQ(read(""), RunConfig{});
  EXPECT_EQ(read("# nothing\noptim:\n"), RunConfig{});
}

TEST(Config, ReadsEveryKindOfMember) {
  const RunConfig config = read(
      "run: a b/c\nresume: true\nthreads: -3\ntokens: 9007199254740993\nrule: delta\n"
      "rules: [delta, linear]\nflags: [true, false]\n"
      "optim:\n  peak_rate: 1e-2\n  betas: [0.5]\n  groups:\n    - {pattern: gate, rate: .5}\n");
  EXPECT_EQ(config, (RunConfig{.run = "a b/c",
                               .resume = true,
                               .threads = -3,
                               .tokens = 9007199254740993,
                               .rule = Rule::kDelta,
                               .rules = {Rule::kDelta, Rule::kLinear},
                               .flags = {true, false},
                               .optim = {1e-2, {0.5}, {{"gate", 0.5}}}}));
}

TEST(Config, WhatIsWrittenReadsBackAsTheSame) {
  RunConfig config;
  config.run = "null";
  config.rules = {Rule::kDelta};
  config.flags = {false, true};
  config.optim.peak_rate = 0.1 + 0.2;
  config.optim.betas = {1.0 / 3, 5e-324, 1.7976931348623157e308,
                        std::numeric_limits<double>::infinity()};
  config.optim.groups = {{"a: \"b\"\n\t#c\\ \xC3\xA9", -0.0}, {"", 1e22}};
  const std::string yaml = config_yaml(config);
  EXPECT_EQ(read(yaml), config) << yaml;
  EXPECT_EQ(config_yaml(read(yaml)), yaml);
}

TEST(Config, UnknownKeyIsRefusedWithTheNearestName) {
  EXPECT_EQ(refusal("run: x\noptim:\n  peek_rate: 1\n"),
            "run.yaml:3: unknown key optim.peek_rate; did you mean peak_rate?");
  EXPECT_THAT(refusal("colour: red\n"), HasSubstr("known are run, resume, threads"));
  EXPECT_THAT(refusal("optim: {groups: [{rat: 1}]}"),
              HasSubstr("unknown key optim.groups[0].rat; did you mean rate?"));
}

TEST(Config, DuplicateKeyIsRefused) {
  EXPECT_EQ(refusal("run: x\nthreads: 1\nrun: y\n"),
            "run.yaml:3: key \"run\" appears twice, first at run.yaml:1");
}

TEST(Config, WrongTypeIsRefusedWithValueAndExpectation) {
  EXPECT_EQ(refusal("threads: many"), "run.yaml:1: threads is \"many\", expected an integer");
  EXPECT_THAT(refusal("threads: \"4\""), HasSubstr("is the text \"4\", expected an integer"));
  EXPECT_THAT(refusal("threads: 1.5"), HasSubstr("expected an integer"));
  EXPECT_THAT(refusal("threads: [1]"), HasSubstr("threads is a list, expected an integer"));
  EXPECT_THAT(refusal("threads:"), HasSubstr("threads is nothing"));
  EXPECT_THAT(refusal("resume: yes"), HasSubstr("expected true or false"));
  EXPECT_THAT(refusal("optim: {peak_rate: nan}"), HasSubstr("expected a number"));
  EXPECT_THAT(refusal("optim: 3"), HasSubstr("optim is \"3\", expected a group of keys"));
  EXPECT_THAT(refusal("optim: {betas: 1}"), HasSubstr("expected a list"));
  EXPECT_THAT(refusal("rule: cubic"), HasSubstr("rule is \"cubic\", expected linear or delta"));
  EXPECT_THAT(refusal("run: {a: b}"), HasSubstr("run is a group of keys, expected text"));
  EXPECT_THAT(refusal("- a\n- b\n"), HasSubstr("expected keys and values, got a list"));
}

TEST(Config, IntegerOutOfRangeIsRefusedWithTheRange) {
  EXPECT_THAT(refusal("threads: 3000000000"), HasSubstr("from -2147483648 to 2147483647"));
  EXPECT_THAT(refusal("tokens: 9223372036854775808"), HasSubstr("to 9223372036854775807"));
  EXPECT_THAT(refusal("optim: {peak_rate: 1e999}"), HasSubstr("fits a double"));
}

TEST(Config, ValidationSpeaksAsConfigError) {
  EXPECT_EQ(refusal("optim: {peak_rate: -1}"), "optim.peak_rate must be positive, got -1");
}

TEST(Config, OverridesPassTheSameChecks) {
  const RunConfig config =
      read("optim: {peak_rate: 1}", {"optim.peak_rate=0.5", "run=runs/a: b #1", "threads=+7",
                                     "optim.betas=[0.1, 0.2]", "rule=delta"});
  EXPECT_EQ(config.optim.peak_rate, 0.5);
  EXPECT_EQ(config.run, "runs/a: b #1");
  EXPECT_EQ(config.threads, 7);
  EXPECT_EQ(config.optim.betas, (std::vector{0.1, 0.2}));
  EXPECT_EQ(read("run: x", {"run="}).run, "");
  EXPECT_EQ(read("optim:\n", {"optim.peak_rate=2"}).optim.peak_rate, 2);

  EXPECT_THAT(refusal("", {"optim.peek_rate=1"}),
              HasSubstr("command line: unknown key optim.peek_rate; did you mean peak_rate?"));
  EXPECT_THAT(refusal("", {"threads=x"}), HasSubstr("command line: threads is \"x\""));
  EXPECT_THAT(refusal("", {"threads"}), HasSubstr("expected key=value"));
  EXPECT_THAT(refusal("", {"a..b=1"}), HasSubstr("empty name between dots"));
  EXPECT_THAT(refusal("threads: 1", {"threads.x=1"}), HasSubstr("has no key x"));
  EXPECT_THAT(refusal("", {"optim.betas=[1"}), HasSubstr("command line:1: not YAML"));
}

TEST(Config, AliasesWorkInSmallNumbersAndBombsAreRefused) {
  EXPECT_EQ(read("threads: &n 3\ntokens: *n\n").tokens, 3);

  std::string laughs = "a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n";
  for (char name = 'b'; name <= 'i'; ++name) {
    const std::string last{static_cast<char>(name - 1)};
    laughs += std::string{name} + ": &" + name + " [";
    for (int i = 0; i < 9; ++i) laughs += "*" + last + (i < 8 ? ", " : "]\n");
  }
  EXPECT_THAT(refusal(laughs), HasSubstr("more than 16 aliases"));

  std::string thousand = "x: &a [";
  for (int i = 0; i < 5000; ++i) thousand += "1,";
  thousand += "1]\n";
  for (int i = 0; i < 8; ++i) thousand += "y" + std::to_string(i) + ": *a\n";
  EXPECT_THAT(refusal(thousand), HasSubstr("more than 20000 values"));
  EXPECT_THAT(refusal("a: &a [*a]"), AllOf(HasSubstr("run.yaml:1")));
}

TEST(Config, MonstersAreRefused) {
  EXPECT_THAT(refusal("run: " + std::string(40, '[') + std::string(40, ']')),
              HasSubstr("nested deeper than 32 levels"));
  EXPECT_THAT(refusal("run: " + std::string(200'000, '[')), HasSubstr("run.yaml:1"));
  EXPECT_THAT(refusal("run: " + std::string(1 << 20, 'x')), HasSubstr("at most 1048576"));
  EXPECT_THAT(refusal("run: !!python/object x"), HasSubstr("tag"));
  EXPECT_THAT(refusal("run: x\n---\nrun: y\n"), HasSubstr("more than one YAML document"));
  EXPECT_THAT(refusal("run: [x"), HasSubstr("run.yaml:1: not YAML"));
  EXPECT_THAT(refusal("[a]: x"), HasSubstr("a key must be a name"));
  EXPECT_THAT(refusal("\"\": x"), HasSubstr("a key must have a name"));
  EXPECT_THAT(refusal(std::string_view("run: \0", 6)), HasSubstr("zero byte"));
  EXPECT_THROW(read_config_file<RunConfig>("/nowhere.yaml"), ConfigError);
  EXPECT_THROW(read_config_file<RunConfig>("/"), ConfigError);
}

TEST(Config, HelpListsEveryKeyWithDefaultAndChoices) {
  const std::string help = config_help<RunConfig>();
  EXPECT_THAT(help,
              HasSubstr("optim.peak_rate                   3e-04           learning rate at"));
  EXPECT_THAT(help, HasSubstr("how the memory is written (linear|delta)"));
  EXPECT_THAT(help, HasSubstr("optim.groups[].pattern"));
}

}  // namespace
}  // namespace infini
