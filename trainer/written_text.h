// A continuation as text, while its tokens come.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/tokenizer.h"

namespace infini {

// Words that end a text which comes in pieces. What stands before the first of them is passed on as
// soon as it cannot be part of one.
class StopText {
 public:
  explicit StopText(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  // Takes the next piece of the text and returns what may be shown by now.
  std::string add(const std::string& piece);
  bool found() const { return found_; }  // a stop has come: nothing is shown any more
  std::string rest();                    // the text has ended: what was held back

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool found_ = false;
};

class WrittenText {
 public:
  // Of what follows the token `last`, up to the first of `stops`. `show`, where given, is told each
  // piece as soon as it is certain. The tokenizer must outlive this.
  WrittenText(const Tokenizer& tokenizer, std::int32_t last, std::vector<std::string> stops,
              std::function<void(const std::string&)> show = {})
      : tokenizer_(&tokenizer), last_(last), stop_(std::move(stops)), show_(std::move(show)) {}

  bool add(std::int32_t token);  // whether the text goes on
  void finish() { pass_on(stop_.rest()); }
  const std::string& text() const { return text_; }

 private:
  void pass_on(const std::string& piece);

  const Tokenizer* tokenizer_;
  std::int32_t last_;
  StopText stop_;
  std::function<void(const std::string&)> show_;
  std::string text_;
};

}  // namespace infini
