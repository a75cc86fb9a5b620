// ROUGE (Lin 2004, "ROUGE: a package for automatic evaluation of summaries"), to the last digit as
// Google's rouge_score computes it, which published tables of BookSum use.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace infini {

// Words: letters are made small, runs of anything but a to z and 0 to 9 separate them.
// `stem`: words of more than three letters are cut to their stem (trainer/porter_stemmer.h).
std::vector<std::string> rouge_words(std::string_view text, bool stem);

struct RougeScore {
  double precision = 0, recall = 0, f = 0;  // f is the harmonic mean of both
};

enum class RougeKind {
  kOne,  // words in common
  kTwo,  // pairs of neighbouring words in common
  kL,    // longest common subsequence
  kLsum  // union over lines of the candidate of subsequences common with each line of the reference
};
constexpr std::array kRougeKinds = {RougeKind::kOne, RougeKind::kTwo, RougeKind::kL,
                                    RougeKind::kLsum};
const char* name_of(RougeKind kind);  // rouge1, rouge2, rougeL, rougeLsum

using RougeScores = std::array<RougeScore, kRougeKinds.size()>;

// What of `reference` the candidate says, in the order of kRougeKinds. All zeros where one of them
// has no word (or, for pairs, no pair).
RougeScores rouge(std::string_view reference, std::string_view candidate, bool stem);

// (rouge1 rouge2 rougeL)^(1/3), of scores or of their means: the one number of the paper's Table 4.
double rouge_geometric_mean(double rouge1, double rouge2, double rouge_l);

// The mean and where 95 % of the means of as many values, drawn again with repetition, lie.
// mean and bounds of no values are 0.
struct Interval {
  double low = 0, mean = 0, high = 0;
};
Interval bootstrap_mean(const std::vector<double>& values, std::uint64_t seed);

}  // namespace infini
