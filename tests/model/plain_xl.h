// A model by plain loops over tokens, for tests to compare with.
#pragma once

#include <optional>

#include "tests/model/plain_loops.h"

namespace infini {

// A Transformer-XL of one row, or a model whose heads add to it, in the letters of Dai et al. 2019,
// section 3.3: no packed tensors, no caches; a token simply reads all tokens from the cache's
// length before its segment on.
class PlainXl : public PlainLoops {
 public:
  explicit PlainXl(const InfiniTransformer& model) : PlainLoops(model), config_(model.config()) {}
  virtual ~PlainXl() = default;

  // starts[s]: segment s begins a document.
  Grid hidden(const std::vector<std::int32_t>& tokens, const std::vector<bool>& starts) const {
    Grid h;
    for (const std::int32_t token : tokens) h.push_back(row("embedding.weight", token));
    for (int layer = 0; layer < config_.layers; ++layer)
      h = block(h, layer, [&](const Grid& x, const std::string& prefix) {
        return attention(x, layer, prefix, starts);
      });
    return norm(h, "final_norm.weight");
  }

 protected:
  // Token i of the document that begins at `document`, of x: what the attention of a layer took.
  struct Reader {
    const Grid& x;
    const std::vector<bool>& starts;
    std::size_t i, document;
    int layer, head;
    std::string prefix;  // of the layer's parameters
  };
  // The rows before the segment of token i that it reads, up to the segment; nothing where a place
  // is empty.
  using Context = std::vector<std::optional<Array>>;
  virtual Context context(const Reader& at) const {
    const auto segment = static_cast<std::size_t>(config_.segment_tokens);
    const auto cache = static_cast<std::size_t>(config_.cached_tokens());
    const std::size_t begin = at.i / segment * segment;
    const std::size_t first = std::max(at.document, begin > cache ? begin - cache : 0);
    return {at.x.begin() + first, at.x.begin() + begin};
  }
  // Told what the attention of each layer takes.
  virtual void taken(const Reader&) const {}
  // What a head makes of what it read of the cache and the segment.
  virtual Array mixed(const Reader&, const Array& local) const { return local; }

  Array sinusoid(std::size_t distance) const {
    const int half = config_.d_model / 2;
    Array r(config_.d_model);
    for (int i = 0; i < half; ++i) {
      const double angle =
          static_cast<double>(distance) / std::pow(config_.rope_base, i / (0.0 + half));
      r[i] = std::sin(angle);
      r[half + i] = std::cos(angle);
    }
    return r;
  }
  Grid attention(const Grid& x, int layer, const std::string& prefix,
                 const std::vector<bool>& starts) const {
    const auto segment = static_cast<std::size_t>(config_.segment_tokens);
    const int width = config_.head_width(), group = config_.heads / config_.key_value_heads();
    const Array u = values(prefix + "content_bias"), v = values(prefix + "position_bias");
    Grid result;
    for (std::size_t i = 0; i < x.size(); ++i) {
      Reader at{.x = x,
                .starts = starts,
                .i = i,
                .document = 0,
                .layer = layer,
                .head = 0,
                .prefix = prefix};
      for (std::size_t s = 0; s <= i / segment; ++s)
        if (starts[s]) at.document = s * segment;
      if (i == 0) taken(at);
      Context read = context(at);
      read.insert(read.end(), x.begin() + i / segment * segment, x.begin() + i + 1);
      const Array q = times(prefix + "query.weight", x[i]);
      Array heads(q.size(), 0.0);
      for (int h = 0; h < config_.heads; ++h) {
        const int column = h / group * width;
        Array weights;
        Grid v_j;
        double total = 0;
        for (std::size_t j = 0; j < read.size(); ++j) {
          if (!read[j]) continue;
          const Array k = times(prefix + "key.weight", *read[j]),
                      r = times(prefix + "position.weight", sinusoid(read.size() - 1 - j));
          double score = 0;
          for (int c = 0; c < width; ++c)
            score += (q[h * width + c] + u[h * width + c]) * k[column + c] +
                     (q[h * width + c] + v[h * width + c]) * r[column + c];
          weights.push_back(std::exp(score / std::sqrt(width)));
          total += weights.back();
          v_j.push_back(times(prefix + "value.weight", *read[j]));
        }
        Array local(width, 0.0);
        for (std::size_t n = 0; n < weights.size(); ++n)
          for (int c = 0; c < width; ++c) local[c] += weights[n] / total * v_j[n][column + c];
        at.head = h;
        const Array head = mixed(at, local);
        std::copy(head.begin(), head.end(), heads.begin() + h * width);
      }
      result.push_back(times(prefix + "output.weight", heads));
    }
    return result;
  }

  const ModelConfig& config_;
};

}  // namespace infini
