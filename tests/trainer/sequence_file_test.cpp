// A text whose state lay in a file goes on as if it never had.
#include "trainer/sequence_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "data/durable_file.h"
#include "data/seal.h"
#include "tests/data/fixtures.h"
#include "tests/trainer/sequences.h"
#include "trainer/checkpoint_shard.h"
#include "trainer/generation.h"

namespace infini {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

const std::string kModel = "0123456789abcdef";

class SavedSequence : public testing::TestWithParam<Tiny> {
 protected:
  InfiniTransformer model(DType dtype = DType::kFloat32) const {
    Tiny tiny = GetParam();
    tiny.dtype = dtype;
    return model_of(tiny);
  }
  Sequence through_a_file(const Sequence& sequence) const {
    save_sequence(file_, sequence, kModel);
    return load_sequence(file_, sequence.decoder().model(), kModel);
  }
  std::uintmax_t bytes_of(const Sequence& sequence) const {
    save_sequence(file_, sequence, kModel);
    return std::filesystem::file_size(file_);
  }

  TempFolder folder_;
  const std::filesystem::path file_ = folder_ / "text.state";
};

const GenerationOptions kOptions{.sampling = {.temperature = 0.9, .top_p = 0.95},
                                 .repetition = {.penalty = 1.3, .no_repeat_ngram = 3},
                                 .max_tokens = 9,
                                 .seed = 5};

// What it writes, and the logits that follow.
std::pair<Ids, std::vector<float>> written_by(Sequence& sequence) {
  const Ids tokens = go_on(sequence, kOptions).tokens;
  return {tokens, sequence.next_logits()};
}

// Reading and writing, interrupted at any place.
TEST_P(SavedSequence, GoesOnToTheLastBitWhereverItWasCut) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const InfiniTransformer model = this->model(dtype);
    const Ids prompt = some_ids(48);
    Sequence whole = sequence_of(model, prompt);
    const auto expected = written_by(whole);
    for (const std::size_t cut : {1, 5, 19, 20, 33, 47, 48}) {
      Sequence first = sequence_of(model, Ids(prompt.begin(), prompt.begin() + cut));
      Sequence second = through_a_file(first);
      second.give(std::span(prompt).subspan(cut));
      EXPECT_EQ(written_by(second), expected) << "cut at " << cut;
    }
    for (const std::int64_t count : {1, 4, 8}) {
      Sequence first = sequence_of(model, prompt);
      GenerationOptions options = kOptions;
      options.max_tokens = count;
      Ids tokens = go_on(first, options).tokens;
      Sequence second = through_a_file(first);
      options.max_tokens = 9 - count;
      const Ids rest = go_on(second, options).tokens;
      tokens.insert(tokens.end(), rest.begin(), rest.end());
      EXPECT_EQ(std::pair(tokens, second.next_logits()), expected) << "cut after " << count;
    }
  }
}

TEST_P(SavedSequence, IsOfOneSizeHoweverLongTheText) {
  const InfiniTransformer model = this->model();
  const std::uintmax_t bytes = bytes_of(sequence_of(model, some_ids(100)));
  for (const std::int64_t tokens : {21, 237, 3000})
    EXPECT_EQ(bytes_of(sequence_of(model, some_ids(tokens))), bytes) << tokens;
  EXPECT_LE(bytes_of(sequence_of(model, some_ids(3))), bytes);
  Sequence written = sequence_of(model, some_ids(100));
  written.catch_up();
  EXPECT_EQ(bytes_of(written), bytes);
}

TEST_P(SavedSequence, KnowsThatItHasEnded) {
  const InfiniTransformer model = this->model();
  Sequence sequence = sequence_of(model, some_ids(23));
  sequence.next_logits();
  sequence.end();
  Sequence again = through_a_file(sequence);
  EXPECT_TRUE(again.ended());
  EXPECT_TRUE(again.waiting().empty());
  again.give(some_ids(4));
  sequence.give(some_ids(4));
  EXPECT_EQ(again.next_logits(), sequence.next_logits());
}

INSTANTIATE_TEST_SUITE_P(Models, SavedSequence, testing::ValuesIn(kTinies), tiny_name);

class SequenceFile : public testing::Test {
 protected:
  void SetUp() override { save_sequence(file_, sequence_of(model_, some_ids(33)), kModel); }
  template <class E>
  std::string refusal(const std::string& identity = kModel) {
    return message_of<E>([&] { load_sequence(file_, model_, identity); });
  }
  // A sealed file of another kind.
  void put(const std::string& header, const std::vector<NamedBuffer>& buffers = {}) {
    write_shard(file_, buffers, header);
    write_seal(file_);
  }

  const InfiniTransformer model_ = model_of({.dtype = DType::kFloat32});
  TempFolder folder_;
  const std::filesystem::path file_ = folder_ / "text.state";
};

TEST_F(SequenceFile, LeavesNothingBesideIt) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder_.path()))
    names.push_back(entry.path().filename());
  EXPECT_THAT(names, testing::ElementsAre("text.state"));
}

TEST_F(SequenceFile, ThatCannotBeWrittenLeavesTheOldOne) {
  const std::string before = read_file(file_);
  std::filesystem::create_directory(folder_ / "text.state.tmp");  // where it would be written
  EXPECT_THROW(save_sequence(file_, sequence_of(model_, some_ids(9)), kModel), DeviceError);
  EXPECT_EQ(read_file(file_), before);
}

TEST_F(SequenceFile, OfAnotherModelIsRefused) {
  EXPECT_EQ(refusal<ConfigError>("fedcba9876543210"),
            file_.string() +
                ": was saved with another model: checkpoint 0123456789abcdef, this one is "
                "fedcba9876543210");
}

TEST_F(SequenceFile, WithAnyByteChangedOrLostIsRefused) {
  const std::string whole = read_file(file_);
  for (std::size_t place = 0; place < whole.size(); place += 997) {
    std::string changed = whole;
    changed[place] = static_cast<char>(changed[place] ^ 16);
    put_file(file_, changed);
    EXPECT_THAT(refusal<DataError>(), HasSubstr("this state of a text is damaged")) << place;
  }
  for (const std::size_t length :
       {std::size_t{0}, std::size_t{20}, whole.size() / 2, whole.size() - 1}) {
    put_file(file_, whole.substr(0, length));
    EXPECT_THAT(refusal<DataError>(), HasSubstr("is not a complete state of a text")) << length;
  }
  std::filesystem::remove(file_);
  EXPECT_EQ(refusal<DataError>(), file_.string() + ": no such state of a text");
}

TEST_F(SequenceFile, OfAnotherVersionOrKindIsRefused) {
  put(R"({"format": "infini sequence", "version": 2, "model": "0123456789abcdef"})");
  EXPECT_EQ(refusal<DataError>(), file_.string() + ": is of version 2, this build reads 1");
  for (const char* header : {R"({"format": "something"})", "no JSON", "[]", R"({"format": 5})"}) {
    put(header);
    EXPECT_EQ(refusal<DataError>(), file_.string() + ": is not the state of a text") << header;
  }
  put(R"({"format": "infini sequence", "version": 1, "model": "0123456789abcdef"})");
  EXPECT_EQ(refusal<DataError>(), file_.string() + ": holds no numbers");
}

}  // namespace
}  // namespace infini
