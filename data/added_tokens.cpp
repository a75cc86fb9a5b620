#include "data/added_tokens.h"

#include <utility>

#include "data/characters.h"

namespace infini {
namespace {

bool is(Character character, int kinds) { return (character_kinds()[character.code] & kinds) != 0; }

// Length of the white space at the end and at the start of `text`.
std::size_t space_behind(std::string_view text) {
  const std::size_t size = text.size();
  while (!text.empty() && is(last_character(text), kSpace))
    text.remove_suffix(static_cast<std::size_t>(last_character(text).bytes));
  return size - text.size();
}

std::size_t space_ahead(std::string_view text) {
  const std::size_t size = text.size();
  while (!text.empty() && is(first_character(text), kSpace))
    text.remove_prefix(static_cast<std::size_t>(first_character(text).bytes));
  return size - text.size();
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  for (std::size_t t = 0; t < tokens_.size(); ++t) {
    const std::string& content = tokens_[t].content;
    begins_[static_cast<unsigned char>(content.front())] = true;
    std::int32_t node = 0;
    for (const char c : content) {
      const auto [next, is_new] =
          nodes_.emplace(edge(node, c), static_cast<std::int32_t>(token_at_.size()));
      if (is_new) token_at_.push_back(-1);
      node = next->second;
    }
    token_at_[static_cast<std::size_t>(node)] = static_cast<std::int32_t>(t);
  }
}

const AddedToken* AddedTokens::longest(std::string_view text) const {
  const AddedToken* found = nullptr;
  std::int32_t node = 0;
  for (const char c : text) {
    const auto next = nodes_.find(edge(node, c));
    if (next == nodes_.end()) break;
    node = next->second;
    if (const std::int32_t token = token_at_[static_cast<std::size_t>(node)]; token >= 0)
      found = &tokens_[static_cast<std::size_t>(token)];
  }
  return found;
}

void AddedTokens::split(std::string_view text,
                        const std::function<void(std::string_view)>& ordinary,
                        const std::function<void(std::int32_t)>& found) const {
  std::size_t done = 0, spaces_end = 0;  // spaces_end: of the last white space taken after a token
  for (std::size_t at = 0; at < text.size() && !tokens_.empty();) {
    const AddedToken* token =
        begins_[static_cast<unsigned char>(text[at])] ? longest(text.substr(at)) : nullptr;
    if (!token) {
      ++at;
      continue;
    }
    std::size_t begin = at;
    std::size_t end = at += token->content.size();  // what is taken is not looked at again
    if (token->single_word &&
        ((begin > 0 && is(last_character(text.substr(0, begin)), kWordPart)) ||
         (end < text.size() && is(first_character(text.substr(end)), kWordPart))))
      continue;
    if (token->lstrip)
      begin = begin > done ? begin - space_behind(text.substr(done, begin - done)) : done;
    if (token->rstrip) {
      if (end >= spaces_end) spaces_end = end + space_ahead(text.substr(end));
      end = spaces_end;
    }
    if (begin >= end) continue;  // it is white space that the token before it has taken
    if (done < begin) ordinary(text.substr(done, begin - done));
    found(token->id);
    done = end;
  }
  if (done < text.size()) ordinary(text.substr(done));
}

}  // namespace infini
