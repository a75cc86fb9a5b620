#include "data/byte_pairs.h"

#include <algorithm>

namespace infini {
namespace {

constexpr std::int64_t kNone = -1;

struct Symbol {
  std::int32_t token;  // -1: merged into one before it
  std::int64_t previous, next;
};

struct Candidate {
  std::int32_t rank, merged;
  std::int64_t at;  // of its left symbol

  // For a heap whose front is the first to merge.
  friend bool operator<(const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
  }
};

}  // namespace

BytePairs::BytePairs(const std::array<std::int32_t, 256>& bytes, const std::vector<Merge>& merges)
    : bytes_(bytes) {
  std::size_t slots = 1;
  for (; slots < 2 * merges.size() + 2; slots *= 2) --shift_;
  table_.resize(slots);
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const Merge& merge = merges[rank];
    std::size_t slot = slot_of(merge.left, merge.right);
    while (table_[slot].left >= 0) slot = (slot + 1) & (table_.size() - 1);
    table_[slot] = {merge.left, merge.right, static_cast<std::int32_t>(rank), merge.merged};
  }
}

std::size_t BytePairs::slot_of(std::int32_t left, std::int32_t right) const {
  const std::uint64_t key =
      static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint32_t>(right);
  return static_cast<std::size_t>((key * 0x9E3779B97F4A7C15u ^ key >> 29) * 0xBF58476D1CE4E5B9u >>
                                  shift_);
}

const BytePairs::Entry* BytePairs::find(std::int32_t left, std::int32_t right) const {
  for (std::size_t slot = slot_of(left, right); table_[slot].left >= 0;
       slot = (slot + 1) & (table_.size() - 1))
    if (table_[slot].left == left && table_[slot].right == right) return &table_[slot];
  return nullptr;
}

void BytePairs::encode(std::string_view piece, std::vector<std::int32_t>& tokens) const {
  const auto count = static_cast<std::int64_t>(piece.size());
  std::vector<Symbol> symbols(piece.size());
  std::vector<Candidate> heap;
  const auto symbol = [&](std::int64_t i) -> Symbol& {
    return symbols[static_cast<std::size_t>(i)];
  };
  const auto consider = [&](std::int64_t left) {
    const std::int64_t right = symbol(left).next;
    if (right == kNone) return false;
    const Entry* found = find(symbol(left).token, symbol(right).token);
    if (found) heap.push_back({found->rank, found->merged, left});
    return found != nullptr;
  };

  for (std::int64_t i = 0; i < count; ++i)
    symbol(i) = {.token = bytes_[static_cast<unsigned char>(piece[static_cast<std::size_t>(i)])],
                 .previous = i - 1,
                 .next = i + 1 < count ? i + 1 : kNone};
  for (std::int64_t i = 0; i < count; ++i) consider(i);
  std::make_heap(heap.begin(), heap.end());

  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end());
    const Candidate best = heap.back();
    heap.pop_back();
    Symbol& left = symbol(best.at);
    if (left.token < 0 || left.next == kNone) continue;
    Symbol& right = symbol(left.next);
    const Entry* still = find(left.token, right.token);
    if (!still || still->rank != best.rank) continue;  // a neighbour has merged since

    left.token = best.merged;
    right.token = -1;
    left.next = right.next;
    if (left.next != kNone) symbol(left.next).previous = best.at;
    if (consider(best.at)) std::push_heap(heap.begin(), heap.end());
    if (left.previous != kNone && consider(left.previous)) std::push_heap(heap.begin(), heap.end());
  }
  for (std::int64_t i = count > 0 ? 0 : kNone; i != kNone; i = symbol(i).next)
    tokens.push_back(symbol(i).token);
}

}  // namespace infini
