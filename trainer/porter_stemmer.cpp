#include "trainer/porter_stemmer.h"

#include <algorithm>
#include <span>
#include <utility>

namespace infini {
namespace {

bool is_consonant(std::string_view word, std::size_t i) {
  bool consonant = false;  // whether the letter before is one
  std::size_t first = i;   // before the run of y that ends at i
  while (first > 0 && word[first] == 'y') --first;
  for (; first <= i; ++first) {
    const char c = word[first];
    const bool vowel = std::string_view("aeiou").find(c) != std::string_view::npos;
    consonant = c == 'y' ? first == 0 || !consonant : !vowel;
  }
  return consonant;
}

// How often a consonant follows a vowel.
int measure(std::string_view stem) {
  int count = 0;
  for (std::size_t i = 1; i < stem.size(); ++i)
    count += is_consonant(stem, i) && !is_consonant(stem, i - 1);
  return count;
}

bool has_vowel(std::string_view stem) {
  for (std::size_t i = 0; i < stem.size(); ++i)
    if (!is_consonant(stem, i)) return true;
  return false;
}

bool ends_in_double_consonant(std::string_view word) {
  const std::size_t n = word.size();
  return n >= 2 && word[n - 1] == word[n - 2] && is_consonant(word, n - 1);
}

// Consonant, vowel, consonant other than w, x, y; or a vowel and a consonant alone.
bool is_short(std::string_view word) {
  const std::size_t n = word.size();
  if (n == 2) return !is_consonant(word, 0) && is_consonant(word, 1);
  return n >= 3 && is_consonant(word, n - 3) && !is_consonant(word, n - 2) &&
         is_consonant(word, n - 1) &&
         std::string_view("wxy").find(word[n - 1]) == std::string_view::npos;
}

using Condition = bool (*)(std::string_view stem);
bool always(std::string_view) { return true; }
bool is_long(std::string_view stem) { return measure(stem) > 0; }
bool is_longer(std::string_view stem) { return measure(stem) > 1; }

struct Rule {
  std::string_view suffix, replacement;
  Condition condition;
};

// The first rule whose suffix the word has decides: where its condition does not hold, the word
// stays.
std::string rewritten(std::string_view word, std::span<const Rule> rules) {
  for (const Rule& rule : rules) {
    if (!word.ends_with(rule.suffix)) continue;
    const std::string_view stem = word.substr(0, word.size() - rule.suffix.size());
    if (!rule.condition(stem)) break;
    return std::string(stem).append(rule.replacement);
  }
  return std::string(word);
}

std::string without_plural(std::string_view word) {
  if (word.size() == 4 && word.ends_with("ies")) return std::string(word.substr(0, 3));
  static constexpr Rule kRules[] = {
      {"sses", "ss", always}, {"ies", "i", always}, {"ss", "ss", always}, {"s", "", always}};
  return rewritten(word, kRules);
}

// -ed and -ing.
std::string without_participle(std::string_view word) {
  if (word.ends_with("ied"))
    return std::string(word.substr(0, word.size() - (word.size() == 4 ? 1 : 2)));
  static constexpr Rule kAgreed[] = {{"eed", "ee", is_long}};
  if (word.ends_with("eed")) return rewritten(word, kAgreed);
  for (const std::string_view suffix : {"ed", "ing"}) {
    if (!word.ends_with(suffix)) continue;
    const std::string_view stem = word.substr(0, word.size() - suffix.size());
    if (!has_vowel(stem)) continue;
    static constexpr Rule kEnds[] = {
        {"at", "ate", always}, {"bl", "ble", always}, {"iz", "ize", always}};
    if (std::ranges::any_of(kEnds, [&](const Rule& rule) { return stem.ends_with(rule.suffix); }))
      return rewritten(stem, kEnds);
    const bool keeps = std::string_view("lsz").find(stem.back()) != std::string_view::npos;
    if (ends_in_double_consonant(stem)) return std::string(stem.substr(0, stem.size() - !keeps));
    return std::string(stem).append(measure(stem) == 1 && is_short(stem) ? "e" : "");
  }
  return std::string(word);
}

std::string with_i(std::string_view word) {
  static constexpr Rule kRules[] = {{"y", "i", [](std::string_view stem) {
                                       return stem.size() > 1 &&
                                              is_consonant(stem, stem.size() - 1);
                                     }}};
  return rewritten(word, kRules);
}

std::string with_one_suffix_for_two(std::string_view word) {
  if (word.ends_with("alli") && is_long(word.substr(0, word.size() - 4)))
    return with_one_suffix_for_two(word.substr(0, word.size() - 2));
  static constexpr Rule kRules[] = {
      {"ational", "ate", is_long}, {"tional", "tion", is_long}, {"enci", "ence", is_long},
      {"anci", "ance", is_long},   {"izer", "ize", is_long},    {"bli", "ble", is_long},
      {"alli", "al", is_long},     {"entli", "ent", is_long},   {"eli", "e", is_long},
      {"ousli", "ous", is_long},   {"ization", "ize", is_long}, {"ation", "ate", is_long},
      {"ator", "ate", is_long},    {"alism", "al", is_long},    {"iveness", "ive", is_long},
      {"fulness", "ful", is_long}, {"ousness", "ous", is_long}, {"aliti", "al", is_long},
      {"iviti", "ive", is_long},   {"biliti", "ble", is_long},  {"fulli", "ful", is_long}};
  // The l of -logi counts as part of the stem.
  if (word.ends_with("logi"))
    return std::string(word.substr(0, word.size() - is_long(word.substr(0, word.size() - 3))));
  return rewritten(word, kRules);
}

std::string without_second_suffix(std::string_view word) {
  static constexpr Rule kRules[] = {{"icate", "ic", is_long}, {"ative", "", is_long},
                                    {"alize", "al", is_long}, {"iciti", "ic", is_long},
                                    {"ical", "ic", is_long},  {"ful", "", is_long},
                                    {"ness", "", is_long}};
  return rewritten(word, kRules);
}

std::string without_last_suffix(std::string_view word) {
  static constexpr Rule kRules[] = {{"al", "", is_longer},
                                    {"ance", "", is_longer},
                                    {"ence", "", is_longer},
                                    {"er", "", is_longer},
                                    {"ic", "", is_longer},
                                    {"able", "", is_longer},
                                    {"ible", "", is_longer},
                                    {"ant", "", is_longer},
                                    {"ement", "", is_longer},
                                    {"ment", "", is_longer},
                                    {"ent", "", is_longer},
                                    {"ion", "",
                                     [](std::string_view stem) {
                                       return is_longer(stem) &&
                                              (stem.back() == 's' || stem.back() == 't');
                                     }},
                                    {"ou", "", is_longer},
                                    {"ism", "", is_longer},
                                    {"ate", "", is_longer},
                                    {"iti", "", is_longer},
                                    {"ous", "", is_longer},
                                    {"ive", "", is_longer},
                                    {"ize", "", is_longer}};
  return rewritten(word, kRules);
}

std::string tidied(std::string_view word) {
  if (word.ends_with('e')) {
    const std::string_view stem = word.substr(0, word.size() - 1);
    const int syllables = measure(stem);
    if (syllables > 1 || (syllables == 1 && !is_short(stem))) word = stem;
  }
  if (word.ends_with("ll") && is_longer(word.substr(0, word.size() - 1))) word.remove_suffix(1);
  return std::string(word);
}

constexpr std::pair<std::string_view, std::string_view> kIrregular[] = {
    {"sky", "sky"},        {"skies", "sky"},       {"dying", "die"},        {"lying", "lie"},
    {"tying", "tie"},      {"news", "news"},       {"innings", "inning"},   {"inning", "inning"},
    {"outings", "outing"}, {"outing", "outing"},   {"cannings", "canning"}, {"canning", "canning"},
    {"howe", "howe"},      {"proceed", "proceed"}, {"exceed", "exceed"},    {"succeed", "succeed"}};

}  // namespace

std::string porter_stem(std::string_view word) {
  for (const auto& [irregular, stem] : kIrregular)
    if (word == irregular) return std::string(stem);
  if (word.size() <= 2) return std::string(word);
  std::string stem(word);
  for (const auto step : {without_plural, without_participle, with_i, with_one_suffix_for_two,
                          without_second_suffix, without_last_suffix, tidied})
    stem = step(stem);
  return stem;
}

}  // namespace infini
