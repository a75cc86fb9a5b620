// What the tests of data/ share: a folder that goes away, small stores, random text.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "data/token_store.h"
#include "data/tokenizer.h"
#include "tensor/random.h"

namespace infini {

class TempFolder {
 public:
  TempFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "infini-data-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline void put_file(const std::filesystem::path& path, std::string_view bytes) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// Runs `action` and returns the message of the E it throws.
template <class E, class Action>
std::string message_of(Action action) {
  try {
    action();
  } catch (const E& error) {
    return error.what();
  } catch (const std::exception& other) {
    ADD_FAILURE() << "another exception: " << other.what();
    return other.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

// A store over bytes whose document d has tokens (100 d + i) mod 256 for i in [0, lengths[d]).
inline std::shared_ptr<const TokenStore> small_store(const std::filesystem::path& path,
                                                     const std::vector<int>& lengths) {
  const ByteTokenizer bytes;
  TokenStoreWriter writer(path, bytes, "train");
  for (std::size_t d = 0; d < lengths.size(); ++d) {
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(lengths[d]));
    for (std::size_t i = 0; i < tokens.size(); ++i)
      tokens[i] = static_cast<std::int32_t>((100 * d + i) % 256);
    writer.add("document " + std::to_string(d), lengths[d], 1, tokens);
  }
  writer.finish(7);
  return TokenStore::open(path);
}

inline void append_utf8(std::string& text, std::uint32_t c) {
  if (c < 0x80) {
    text += static_cast<char>(c);
  } else if (c < 0x800) {
    text += {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 0x3F))};
  } else if (c < 0x10000) {
    text += {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 0x3F)),
             static_cast<char>(0x80 | (c & 0x3F))};
  } else {
    text += {static_cast<char>(0xF0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 0x3F)),
             static_cast<char>(0x80 | (c >> 6 & 0x3F)), static_cast<char>(0x80 | (c & 0x3F))};
  }
}

// Words, odd white space, characters of all planes, piece-like strings; with `broken`, stray bytes
// as well.
inline std::string random_text(std::uint64_t seed, int parts, bool broken) {
  static const std::vector<std::string> odd = {" ",
                                               "  ",
                                               "     ",
                                               "\n",
                                               "\n\n\n",
                                               "\r\n",
                                               "\t",
                                               "\t\t",
                                               "\xC2\xA0",
                                               "\xE2\x96\x81",
                                               "\xE2\x96\x81the",
                                               std::string(1, '\0'),
                                               "<0x41>",
                                               "<s>",
                                               "</s>",
                                               "<unk>",
                                               "\xF0\x9F\x98\x80",
                                               "\xEF\xBB\xBF",
                                               "\xEF\xBF\xBD",
                                               "e\xCC\x81",
                                               "\xE2\x80\x8D",
                                               "\v\f",
                                               "1234567890",
                                               "don't",
                                               "...",
                                               "\xEF\xAC\x81",
                                               "\xE3\x80\x80",
                                               std::string(100, 'x'),
                                               std::string(70, ' ')};
  static const std::vector<std::string> words = {"the",   "of",  "Book", "memory",
                                                 "white", "and", ","};
  const RandomKey stream{seed, 0, 1};
  std::string text;
  for (int i = 0; i < parts; ++i) {
    const auto draw = [&](std::uint64_t k, std::uint64_t bound) {
      return stream.below(static_cast<std::uint64_t>(8 * i) + k, bound);
    };
    switch (draw(0, broken ? 5 : 4)) {
      case 0:
        text += odd[draw(1, odd.size())];
        break;
      case 1:
        text += " " + words[draw(1, words.size())];
        break;
      case 2:
        text += words[draw(1, words.size())] + "\n";
        break;
      case 3: {
        auto c = static_cast<std::uint32_t>(draw(1, draw(2, 2) ? 0x110000 : 0x300));
        if (c >= 0xD800 && c < 0xE000) c = 0x2581;
        append_utf8(text, c);
        break;
      }
      default:
        text += static_cast<char>(draw(1, 256));
    }
  }
  return text;
}

}  // namespace infini
