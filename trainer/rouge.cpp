#include "trainer/rouge.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <unordered_map>

#include "tensor/random.h"
#include "trainer/porter_stemmer.h"

namespace infini {
namespace {

using Words = std::vector<int>;  // equal words have equal numbers

// Numbers for words, the same in reference and candidate.
class Vocabulary {
 public:
  explicit Vocabulary(bool stem) : stem_(stem) {}
  Words words_of(std::string_view text) {
    Words numbers;
    for (std::string& word : rouge_words(text, stem_))
      numbers.push_back(
          numbers_.try_emplace(std::move(word), static_cast<int>(numbers_.size())).first->second);
    return numbers;
  }
  // Lines that are not empty; one may have no word.
  std::vector<Words> lines_of(std::string_view text) {
    std::vector<Words> lines;
    while (!text.empty()) {
      const std::size_t end = std::min(text.find('\n'), text.size());
      if (end > 0) lines.push_back(words_of(text.substr(0, end)));
      text.remove_prefix(std::min(end + 1, text.size()));
    }
    return lines;
  }

 private:
  bool stem_;
  std::unordered_map<std::string, int> numbers_;
};

RougeScore score(double common, std::size_t in_reference, std::size_t in_candidate) {
  RougeScore made{.precision = common / static_cast<double>(std::max<std::size_t>(in_candidate, 1)),
                  .recall = common / static_cast<double>(std::max<std::size_t>(in_reference, 1))};
  const double sum = made.precision + made.recall;
  if (sum > 0) made.f = 2 * made.precision * made.recall / sum;
  return made;
}

template <class Grams>
RougeScore score_of_grams(const Grams& reference, const Grams& candidate) {
  std::map<typename Grams::value_type, std::int64_t> left;
  for (const auto& gram : reference) ++left[gram];
  std::int64_t common = 0;
  for (const auto& gram : candidate)
    if (const auto at = left.find(gram); at != left.end() && at->second > 0) {
      --at->second;
      ++common;
    }
  return score(static_cast<double>(common), reference.size(), candidate.size());
}

std::vector<std::pair<int, int>> pairs_of(const Words& words) {
  std::vector<std::pair<int, int>> pairs;
  for (std::size_t i = 1; i < words.size(); ++i) pairs.emplace_back(words[i - 1], words[i]);
  return pairs;
}

// Of the longest subsequence that both have.
std::int64_t common_length(const Words& a, const Words& b) {
  std::vector<std::int64_t> row(b.size() + 1, 0);
  for (const int word : a) {
    std::int64_t diagonal = 0;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::int64_t above = row[j];
      row[j] = word == b[j - 1] ? diagonal + 1 : std::max(above, row[j - 1]);
      diagonal = above;
    }
  }
  return row.back();
}

// Marks the words of `line` that a longest subsequence common with `other` has. Of several the one
// whose words come last in `line` and then in `other`.
void mark_common(const Words& line, const Words& other, std::vector<bool>& marked) {
  const std::size_t columns = other.size() + 1;
  std::vector<int> lengths((line.size() + 1) * columns, 0);
  const auto length = [&](std::size_t i, std::size_t j) -> int& {
    return lengths[i * columns + j];
  };
  for (std::size_t i = 1; i <= line.size(); ++i)
    for (std::size_t j = 1; j <= other.size(); ++j)
      length(i, j) = line[i - 1] == other[j - 1] ? length(i - 1, j - 1) + 1
                                                 : std::max(length(i - 1, j), length(i, j - 1));
  for (std::size_t i = line.size(), j = other.size(); i > 0 && j > 0;)
    if (line[i - 1] == other[j - 1]) {
      marked[i - 1] = true;
      --i, --j;
    } else if (length(i, j - 1) > length(i - 1, j)) {
      --j;
    } else {
      --i;
    }
}

RougeScore score_of_lines(const std::vector<Words>& reference,
                          const std::vector<Words>& candidate) {
  std::unordered_map<int, std::int64_t> left_there, left_here;
  std::size_t there = 0, here = 0;
  for (const Words& line : reference) {
    there += line.size();
    for (const int word : line) ++left_there[word];
  }
  for (const Words& line : candidate) {
    here += line.size();
    for (const int word : line) ++left_here[word];
  }
  if (there == 0 || here == 0) return {};
  std::int64_t common = 0;
  for (const Words& line : reference) {
    std::vector<bool> marked(line.size(), false);
    for (const Words& other : candidate) mark_common(line, other, marked);
    for (std::size_t i = 0; i < line.size(); ++i)
      if (marked[i] && left_there[line[i]] > 0 && left_here[line[i]] > 0) {
        --left_there[line[i]], --left_here[line[i]];
        ++common;
      }
  }
  return score(static_cast<double>(common), there, here);
}

// The value below which `share` of the sorted values lie, between two of them in proportion.
double quantile(const std::vector<double>& sorted, double share) {
  const double at = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(at);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

}  // namespace

std::vector<std::string> rouge_words(std::string_view text, bool stem) {
  // Two letters beyond ASCII whose small form is, or begins with, one in it.
  constexpr std::string_view kKelvin = "\xE2\x84\xAA", kDottedI = "\xC4\xB0";
  std::vector<std::string> words;
  std::string word;
  const auto finish = [&] {
    if (word.empty()) return;
    words.push_back(stem && word.size() > 3 ? porter_stem(word) : word);
    word.clear();
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) {
      word += c;
    } else if (c >= 'A' && c <= 'Z') {
      word += static_cast<char>(c - 'A' + 'a');
    } else if (text.substr(i).starts_with(kKelvin)) {
      word += 'k';
      i += kKelvin.size() - 1;
    } else {
      if (text.substr(i).starts_with(kDottedI)) word += 'i';  // a dot that combines follows it
      finish();
    }
  }
  finish();
  return words;
}

const char* name_of(RougeKind kind) {
  static constexpr const char* kNames[] = {"rouge1", "rouge2", "rougeL", "rougeLsum"};
  return kNames[static_cast<std::size_t>(kind)];
}

RougeScores rouge(std::string_view reference, std::string_view candidate, bool stem) {
  Vocabulary vocabulary(stem);
  const Words there = vocabulary.words_of(reference), here = vocabulary.words_of(candidate);
  return {score_of_grams(there, here), score_of_grams(pairs_of(there), pairs_of(here)),
          score(static_cast<double>(common_length(there, here)), there.size(), here.size()),
          score_of_lines(vocabulary.lines_of(reference), vocabulary.lines_of(candidate))};
}

double rouge_geometric_mean(double rouge1, double rouge2, double rouge_l) {
  return std::cbrt(rouge1 * rouge2 * rouge_l);
}

Interval bootstrap_mean(const std::vector<double>& values, std::uint64_t seed) {
  constexpr std::uint64_t kDraws = 1000;
  if (values.empty()) return {};
  const auto count = static_cast<double>(values.size());
  const RandomKey key{.seed = seed};
  std::vector<double> means(kDraws);
  for (std::uint64_t draw = 0; draw < kDraws; ++draw) {
    double sum = 0;
    for (std::size_t i = 0; i < values.size(); ++i)
      sum += values[key.below(draw * values.size() + i, values.size())];
    means[draw] = sum / count;
  }
  std::ranges::sort(means);
  double sum = 0;
  for (const double value : values) sum += value;
  return {.low = quantile(means, 0.025), .mean = sum / count, .high = quantile(means, 0.975)};
}

}  // namespace infini
