#include "trainer/safetensors.h"

#include "data/durable_file.h"
#include "tensor/error.h"
#include "tests/data/fixtures.h"
#include "trainer/pretrained_weights.h"
#include "trainer/safetensors_writer.h"

namespace infini {
namespace {

using testing::HasSubstr;

std::string with_length(const std::string& header) {
  std::string bytes;
  for (int i = 0; i < 8; ++i)
    bytes += static_cast<char>(static_cast<std::uint64_t>(header.size()) >> 8 * i & 0xFF);
  return bytes + header;
}

class Safetensors : public testing::Test {
 protected:
  std::filesystem::path file(const std::string& bytes) const {
    put_file(folder_ / "model.safetensors", bytes);
    return folder_ / "model.safetensors";
  }
  // The file and the tensor are named, and what is wrong.
  void expect_refused(const std::string& header, const std::string& message,
                      std::size_t data_bytes = 24) const {
    const auto path = file(with_length(header) + std::string(data_bytes, 'x'));
    EXPECT_THAT(message_of<DataError>([&] { SafetensorsFile opened(path); }),
                HasSubstr(path.string() + ": " + message))
        << header.substr(0, 200);
  }

  TempFolder folder_;
};

constexpr const char* kA = R"("a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]})";

TEST_F(Safetensors, FindsTensorsWhereTheHeaderSays) {
  const auto path =
      file(with_length(R"({"__metadata__": {"format": "pt"}, )"
                       R"("b": {"shape": [2], "dtype": "BF16", "data_offsets": [4, 8]}, )"
                       R"("empty": {"dtype": "F32", "shape": [0, 7], "data_offsets": [8, 8]}, )"
                       R"("a\u00e9": {"dtype": "F16", "shape": [1, 2], "data_offsets": [0, 4]}, )"
                       R"("scalar": {"dtype": "F32", "shape": [], "data_offsets": [8, 12]}}   )") +
           "abcdefghijkl");
  const SafetensorsFile opened(path);
  ASSERT_EQ(opened.tensors().size(), 4u);
  const auto text_of = [&](const std::string& name) {
    const StoredTensor* tensor = opened.find(name);
    if (!tensor) return std::string("none");
    const auto bytes = opened.bytes(*tensor);
    return text(tensor->type_text(), " ",
                std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  };
  EXPECT_EQ(text_of("a\xC3\xA9"), "fp16 [1, 2] abcd");
  EXPECT_EQ(text_of("b"), "bf16 [2] efgh");
  EXPECT_EQ(text_of("empty"), "fp32 [0, 7] ");
  EXPECT_EQ(text_of("scalar"), "fp32 [] ijkl");
  EXPECT_EQ(text_of("c"), "none");
}

TEST_F(Safetensors, RefuseFilesThatAreCut) {
  const std::string whole = with_length(text("{", kA, "}")) + std::string(24, 'x');
  EXPECT_NO_THROW(SafetensorsFile(file(whole)));
  for (std::size_t bytes = 0; bytes < whole.size(); ++bytes)
    EXPECT_THROW(SafetensorsFile(file(whole.substr(0, bytes))), DataError) << bytes;
  expect_refused(text("{", kA, "}"),
                 "tensor a: ends at byte 24 of the data, of which the file has 20; the file is cut",
                 20);
  const auto path = file("1234567");
  EXPECT_THAT(message_of<DataError>([&] { SafetensorsFile opened(path); }),
              HasSubstr("has 7 bytes, too few for a safetensors file"));
}

TEST_F(Safetensors, RefuseHeadersThatAreTooLong) {
  const auto path = file(std::string(7, '\0') + '\x80' + "{}");
  EXPECT_THAT(message_of<DataError>([&] { SafetensorsFile opened(path); }),
              HasSubstr(path.string() +
                        ": a header of 9223372036854775808 bytes, safetensors allow 100000000"));
  const auto cut = file(with_length(std::string(500, ' ')).substr(0, 200));
  EXPECT_THAT(message_of<DataError>([&] { SafetensorsFile opened(cut); }),
              HasSubstr("a header of 500 bytes in a file of 200; the file is cut"));
}

TEST_F(Safetensors, RefuseOffsetsThatDoNotFit) {
  const auto two = [](const std::string& a, const std::string& b) {
    return text(R"({"a": {"dtype": "F32", "shape": [3], "data_offsets": )", a,
                R"(}, "b": {"dtype": "F32", "shape": [3], "data_offsets": )", b, "}}");
  };
  expect_refused(two("[0, 12]", "[8, 20]"), "tensor b: overlaps tensor a", 20);
  expect_refused(two("[0, 12]", "[0, 12]"), "tensor b: overlaps tensor a", 12);
  expect_refused(two("[0, 12]", "[16, 28]"),
                 "tensor b: begins at byte 16 of the data, nothing fills it from byte 12", 28);
  expect_refused(two("[0, 12]", "[12, 24]"), "4 bytes after the last tensor belong to none", 28);
  expect_refused(two("[0, 12]", "[24, 12]"), "tensor b: data_offsets [24, 12] run backwards");
  expect_refused(two("[0, 12]", "[12, 20]"),
                 "tensor b: data_offsets have 8 bytes, fp32 [3] has 12");
  expect_refused(two("[0, 12]", "[18446744073709551612, 18446744073709551615]"),
                 "tensor b: ends at byte 18446744073709551615 of the data, of which");
  expect_refused(two("[0, 12]", "[12, 18446744073709551616]"),
                 "tensor b: has a number that is not whole or not below 2^64 where a whole number");
  // 2^32 x 2^32 x 4 is 0 in 64 bits.
  expect_refused(
      R"({"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 0]}})",
      "tensor a: data_offsets have 0 bytes, fp32 [4294967296, 4294967296] has more than 2^64", 0);
}

TEST_F(Safetensors, RefuseEntriesThatAreNone) {
  const auto entry = [](const std::string& inside) { return text(R"({"a": {)", inside, "}}"); };
  const std::string shape = R"("shape": [2, 3], "data_offsets": [0, 24])";
  expect_refused(entry(R"("dtype": "I8", )" + shape),
                 "tensor a: dtype I8, expected F32, BF16 or F16");
  expect_refused(entry(R"("dtype": "F8_E4M3", )" + shape), "tensor a: dtype F8_E4M3, expected");
  expect_refused(entry(R"("dtype": 4, )" + shape),
                 "tensor a: has a number where text was expected");
  expect_refused(entry(shape), "tensor a: expected dtype, shape and data_offsets");
  expect_refused(entry(R"("dtype": "F32", "colour": "red", )" + shape),
                 "tensor a: the unknown entry colour");
  expect_refused(entry(R"("dtype": "F32", "shape": [-2, 3], "data_offsets": [0, 24])"),
                 "tensor a: has a negative number where a whole number was expected");
  expect_refused(entry(R"("dtype": "F32", "shape": [2.5], "data_offsets": [0, 24])"),
                 "tensor a: has a number that is not whole");
  expect_refused(entry(R"("dtype": "F32", "shape": [[6]], "data_offsets": [0, 24])"),
                 "tensor a: has a list where a whole number was expected");
  expect_refused(entry(R"("dtype": "F32", "shape": [1,1,1,1,1,1,1,1,6], "data_offsets": [0, 24])"),
                 "tensor a: more than 8 axes");
  expect_refused(entry(R"("dtype": "F32", "shape": [6], "data_offsets": [0, 24, 24])"),
                 "tensor a: more than two data_offsets");
  expect_refused(entry(R"("dtype": null, )" + shape), "tensor a: has null where text");
  expect_refused(R"({"a": 3})", "tensor a: has a number where an object was expected");
  expect_refused(text("{", kA, ", ", kA, "}"), "tensor a: overlaps tensor a", 24);
  expect_refused(text(R"({"e": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}, )",
                      R"("e": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}})"),
                 "tensor e: is there twice", 0);
  expect_refused(text(R"({")", std::string(300, 'n'), R"(": {}})"),
                 text("tensor ", std::string(100, 'n'), "...: a name of 300 bytes"));
  expect_refused("{\"\\u0007\\n\": 1}", "tensor ??: has a number");
  expect_refused(text("{", kA, R"(, "__metadata__": {"format": {"pt": "yes"}}})"),
                 "tensor __metadata__: has an object where text was expected");
}

TEST_F(Safetensors, RefuseHeadersThatAreNoObject) {
  expect_refused("[1, 2]", "its header is not a JSON object");
  expect_refused("null", "its header is not a JSON object");
  expect_refused("", "is not JSON at byte");
  expect_refused(text("{", kA), "is not JSON at byte");
  expect_refused(text("{", kA, "} {}"), "is not JSON at byte");
  expect_refused(std::string(100'000, '['), "its header is not a JSON object");
  expect_refused(text("{", kA, "}", std::string(100'000, ' ')),
                 "more than 65536 bytes of one name, text or number");
  expect_refused(text(R"({"__metadata__": {"k": ")", std::string(100'000, 'v'), R"("}, )", kA, "}"),
                 "more than 65536 bytes of one name, text or number");
}

// What the header says is true of the file, or it is refused: nothing else, whatever it is made of.
TEST_F(Safetensors, SurviveEveryChangeOfAHeader) {
  const auto original = std::filesystem::path(INFINI_SOURCE_DIR) / "tests/pretrained/llama";
  const std::string whole = read_file(original / "model.safetensors");
  const std::size_t header = 8 + static_cast<unsigned char>(whole[0]) +
                             256 * static_cast<std::size_t>(static_cast<unsigned char>(whole[1]));
  const std::string pieces[] = {"{",
                                "}",
                                "[",
                                "]",
                                "\"",
                                ",",
                                ":",
                                "0",
                                "9",
                                "-",
                                "e",
                                "null",
                                ".",
                                "\\",
                                " ",
                                "\xFF",
                                "F32",
                                "BF16",
                                "shape",
                                "1",
                                "[]",
                                "{}",
                                std::string(1, '\0'),
                                "18446744073709551615"};
  int opened = 0, refused = 0;
  for (std::uint64_t round = 0; round < 4000; ++round) {
    const RandomKey key{.seed = round};
    std::string changed = whole;
    const int changes = 1 + static_cast<int>(key.below(0, 3));
    for (int i = 0; i < changes; ++i) {
      const auto draw = [&](std::uint64_t what, std::uint64_t below) {
        return static_cast<std::size_t>(key.below(10 * (i + 1) + what, below));
      };
      const std::size_t at = draw(0, header);
      const std::string& piece = pieces[draw(1, std::size(pieces))];
      switch (draw(2, 5)) {
        case 0:
          changed[at] = static_cast<char>(draw(3, 256));
          break;
        case 1:
          changed.insert(at, piece);
          break;
        case 2:
          changed.erase(at, 1 + draw(3, 40));
          break;
        case 3:
          changed.replace(at, piece.size(), piece);
          break;
        default:
          changed.insert(at, changed.substr(draw(3, header), draw(4, 60)));
      }
      // As often as not the length of the header is right again.
      if (draw(5, 2) == 0 && changed.size() > whole.size() - header) {
        const std::size_t length = changed.size() - (whole.size() - header) - 8;
        changed[0] = static_cast<char>(length & 0xFF);
        changed[1] = static_cast<char>(length >> 8 & 0xFF);
      }
    }
    const auto path = file(changed);
    try {
      const SafetensorsFile found(path);
      std::uint64_t bytes = 0, sum = 0;
      for (const StoredTensor& tensor : found.tensors()) {
        bytes += tensor.end - tensor.begin;
        for (const std::byte each : found.bytes(tensor)) sum += static_cast<std::uint64_t>(each);
      }
      EXPECT_LT(bytes, changed.size()) << sum;
      ++opened;
    } catch (const DataError& error) {
      EXPECT_THAT(error.what(), HasSubstr(path.string()));
      ++refused;
    }
  }
  EXPECT_GT(opened, 50);
  EXPECT_GT(refused, 2000);
}

TEST_F(Safetensors, ComeBackAsTheyWereWritten) {
  const std::vector<std::byte> bytes(24, std::byte{7});
  {
    SafetensorsWriter writer(folder_ / "model.safetensors",
                             {{.name = "a.\"b", .type = StoredType::kFp32, .shape = {2, 3}},
                              {.name = "none", .type = StoredType::kBf16, .shape = {0, 4}},
                              {.name = "c", .type = StoredType::kFp16, .shape = {12}}});
    writer.write(bytes);
    writer.write({});
    writer.write(bytes);
    writer.finish();
  }
  const SafetensorsFile opened(folder_ / "model.safetensors");
  ASSERT_EQ(opened.tensors().size(), 3u);
  EXPECT_EQ(opened.find("a.\"b")->type_text(), "fp32 [2, 3]");
  EXPECT_TRUE(std::ranges::equal(opened.bytes(*opened.find("c")), bytes));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(opened.bytes(*opened.find("a.\"b")).data()) % 64, 0u);
}

TEST_F(Safetensors, AreNotThereWhenTheyWereNotFinished) {
  {
    SafetensorsWriter writer(folder_ / "model.safetensors",
                             {{.name = "a", .type = StoredType::kFp32, .shape = {2}}});
    EXPECT_THAT(message_of<Error>([&] { writer.finish(); }), HasSubstr("has 0 of 1 tensors"));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
}

class PretrainedIndex : public testing::Test {
 protected:
  void index(const std::string& json) { put_file(folder_ / "model.safetensors.index.json", json); }
  std::string refusal() const {
    return message_of<DataError>([&] { PretrainedWeights weights(folder_.path()); });
  }

  TempFolder folder_;
};

TEST_F(PretrainedIndex, MustSayWhatTheFilesHold) {
  put_file(folder_ / "one.safetensors", with_length(text("{", kA, "}")) + std::string(24, 'x'));
  index(R"({"metadata": {"total_size": 24, "other": [1, {"b": null}]},
            "weight_map": {"a": "one.safetensors"}})");
  const PretrainedWeights weights(folder_.path());
  EXPECT_EQ(weights.files(), 1u);
  EXPECT_TRUE(weights.find("a"));
  EXPECT_FALSE(weights.find("b"));

  index(R"({"weight_map": {"a": "one.safetensors", "b": "one.safetensors"}})");
  EXPECT_THAT(refusal(), HasSubstr("one.safetensors: tensor b: is missing"));
  index(R"({"weight_map": {"a": "two.safetensors"}})");
  EXPECT_THAT(refusal(), HasSubstr("two.safetensors: is missing or cannot be read"));
  index(R"({"weight_map": {"a": "one.safetensors", "a": "one.safetensors"}})");
  EXPECT_THAT(refusal(), HasSubstr("index.json: tensor a: is there twice"));
  index(R"({"weight_map": {}, "metadata": {}})");
  EXPECT_NO_THROW(PretrainedWeights(folder_.path()));
  index(R"({"metadata": {}})");
  EXPECT_THAT(refusal(), HasSubstr("index.json: has no weight_map"));
  index(R"({"weight_map": {"a": 3}})");
  EXPECT_THAT(refusal(), HasSubstr("tensor a: expected the name of its file"));
  for (const char* outside : {"../one.safetensors", "/etc/passwd", "", ".hidden"}) {
    index(text(R"({"weight_map": {"a": ")", outside, R"("}})"));
    EXPECT_THAT(refusal(), HasSubstr("which is no name of a file beside it"));
  }
}

TEST_F(PretrainedIndex, MustNotForgetATensorOfAFile) {
  put_file(folder_ / "one.safetensors", with_length(text("{", kA, "}")) + std::string(24, 'x'));
  put_file(folder_ / "two.safetensors", with_length(text("{", kA, "}")) + std::string(24, 'x'));
  index(R"({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}})");
  EXPECT_THAT(refusal(), HasSubstr("two.safetensors: tensor a: is there, but"));
}

TEST_F(PretrainedIndex, IsAskedForWhereThereAreNoWeights) {
  EXPECT_THAT(message_of<ConfigError>([&] { PretrainedWeights weights(folder_.path()); }),
              HasSubstr("holds neither model.safetensors nor model.safetensors.index.json"));
  put_file(folder_ / "pytorch_model.bin", "x");
  EXPECT_THAT(message_of<ConfigError>([&] { PretrainedWeights weights(folder_.path()); }),
              HasSubstr("pytorch_model.bin is not read, save the model as safetensors"));
}

}  // namespace
}  // namespace infini
