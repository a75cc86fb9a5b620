// Remembers the tokens of short strings. Bounded: when full, it forgets everything and starts
// again.
#pragma once

#include <xxhash.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace infini {

class UnitCache {
 public:
  static constexpr std::size_t kLongest = 64;  // bytes of a string that is worth remembering

  // The tokens of `unit`; `compute(unit, tokens)` appends them when they are not known. Valid until
  // the next call.
  template <class Compute>
  std::span<const std::int32_t> get(std::string_view unit, Compute compute) {
    const std::uint64_t bits = XXH3_64bits(unit.data(), unit.size());
    const auto hash = static_cast<std::uint32_t>(bits >> 32);
    std::size_t slot = bits & (kSlots - 1);
    for (; slots_[slot].key_size != 0; slot = (slot + 1) & (kSlots - 1)) {
      const Entry& entry = slots_[slot];
      if (entry.hash == hash && std::string_view(keys_).substr(entry.key, entry.key_size) == unit)
        return {tokens_.data() + entry.tokens, entry.token_count};
    }
    if (used_ >= kSlots / 2) {
      *this = UnitCache();
      slot = bits & (kSlots - 1);
    }
    Entry& entry = slots_[slot];
    const std::size_t begin = tokens_.size();
    compute(unit, tokens_);
    entry = {.hash = hash,
             .key = static_cast<std::uint32_t>(keys_.size()),
             .tokens = static_cast<std::uint32_t>(begin),
             .key_size = static_cast<std::uint16_t>(unit.size()),
             .token_count = static_cast<std::uint16_t>(tokens_.size() - begin)};
    keys_ += unit;
    ++used_;
    return {tokens_.data() + begin, entry.token_count};
  }

 private:
  struct Entry {
    std::uint32_t hash;
    std::uint32_t key, tokens;  // where they begin
    std::uint16_t key_size;     // 0: a free slot
    std::uint16_t token_count;
  };
  static constexpr std::size_t kSlots = std::size_t{1} << 19;  // 16 bytes each

  std::vector<Entry> slots_ = std::vector<Entry>(kSlots);
  std::string keys_;
  std::vector<std::int32_t> tokens_;
  std::size_t used_ = 0;
};

// The caches of one tokenizer: as many as threads have used at the same time.
class UnitCaches {
 public:
  // Calls action(cache) with a cache that nobody else uses meanwhile.
  template <class Action>
  void use(Action action) const {
    std::unique_ptr<UnitCache> cache;
    {
      const std::lock_guard lock(mutex_);
      if (!idle_.empty()) {
        cache = std::move(idle_.back());
        idle_.pop_back();
      }
    }
    if (!cache) cache = std::make_unique<UnitCache>();
    action(*cache);
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(cache));
  }

 private:
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<UnitCache>> idle_;
};

}  // namespace infini
