// The stem of an English word: Porter's algorithm ("An algorithm for suffix stripping", Program
// 14(3), 1980) with the departures that NLTK's default mode lists and ROUGE's reference program
// therefore has: a list of irregular words, words of one or two letters stay, -ies and -ied of
// words of four letters leave -ie, -y after a consonant turns to -i even where there is no vowel
// before it, -bli, -alli, -fulli and -logi have rules, and a vowel with a consonant counts as a
// short stem.
#pragma once

#include <string>
#include <string_view>

namespace infini {

// `word`: letters a to z and digits.
std::string porter_stem(std::string_view word);

}  // namespace infini
