// What stands in the place of a layer's attention where it reads a cache of tokens, in sizes:
// model/{xl,memorizing,compressive}_attention.h. How long it takes was not measured and is not
// counted.
#pragma once

#include <functional>
#include <initializer_list>
#include <utility>
#include <vector>

#include "model/config.h"
#include "trainer/plan_ops.h"

namespace infini {

// Parameters of a layer that an op reads as one, by name.
using LayerPart = std::function<Sized(std::initializer_list<const char*>)>;
// What a layer carries from segment to segment, and its bytes.
using CarriedParts = std::vector<std::pair<Sized SizedState::*, std::int64_t>>;

class PlannedCache {
 public:
  PlannedCache(const PlannedOps& ops, const ModelConfig& model) : ops_(ops), model_(model) {}

  struct Output {
    Sized heads;
    SizedState after;
    std::vector<Sized> held;  // until the output projection is done
  };
  // Of x [R, D], what the layer's norm gives.
  Output attend(SizeTape* tape, int layer, const LayerPart& part, const Sized& x,
                const HeadLayout& layout, const SizedState& memory) const;
  // The memory after it alone.
  SizedState remember(int layer, const LayerPart& part, const Sized& x, const HeadLayout& layout,
                      const SizedState& memory) const;

  // Bytes of what a layer carries from segment to segment, of so many rows.
  CarriedParts carried(int layer, std::int64_t rows) const;

 private:
  // model/newest_tokens.h
  struct Newest {
    Sized context, seen, rows, present;
  };
  struct Compressed {
    Newest tokens, compressed;
    Sized leaving, window_seen, windows;
  };
  Newest newest(const HeadLayout& layout, std::int64_t width, std::int64_t places,
                const Sized& carried) const;
  Newest newest_tokens(const HeadLayout& layout, const SizedState& memory) const;
  Newest newest_pairs(const HeadLayout& layout, const SizedState& memory) const;
  Sized project(SizeTape* tape, const LayerPart& part, const Sized& x,
                const HeadLayout& layout) const;
  // Of so many places before each segment, `rows` in all.
  struct Places {
    Sized context, seen;
    std::int64_t count, rows;
  };
  Sized read(SizeTape* tape, const LayerPart& part, const Sized& qkv, const Places& places,
             const HeadLayout& layout) const;
  Sized retrieve(SizeTape* tape, const LayerPart& part, const Sized& qkv, const Newest& pairs,
                 const Sized& local, const HeadLayout& layout) const;
  Compressed compress(SizeTape* tape, const LayerPart& part, const HeadLayout& layout,
                      const SizedState& memory) const;
  void reconstruct(SizeTape* tape, const Compressed& memory, const HeadLayout& layout) const;
  std::int64_t pair_width() const {
    return 2 * std::int64_t{model_.key_value_heads()} * model_.head_width();
  }

  const PlannedOps& ops_;
  const ModelConfig& model_;
};

}  // namespace infini
