// Attention that reads what stood before a segment, by plain loops.
#include <algorithm>
#include <cmath>

#include "tests/tensor/reference.h"

namespace infini::reference {

// Token by token: a list of places that a reset marks as gone.
Marks cache_seen(const Marks& present, const Marks& keep, const Marks& resets,
                 const HeadLayout& layout, std::int64_t cache_tokens) {
  Marks seen;
  for (std::int64_t b = 0; b < layout.batch; ++b) {
    Marks places(cache_tokens, 0);
    if (!present.empty())
      std::copy_n(present.begin() + b * cache_tokens, cache_tokens, places.begin());
    for (std::int64_t s = 0; s <= layout.segments; ++s) {
      if (s < layout.segments && !resets.empty() && resets[b * layout.segments + s])
        std::fill(places.begin(), places.end(), 0);
      seen.insert(seen.end(), places.end() - cache_tokens, places.end());
      if (s == layout.segments) break;
      for (std::int64_t t = 0; t < layout.tokens; ++t)
        places.push_back(keep.empty() ? 1 : keep[(b * layout.segments + s) * layout.tokens + t]);
    }
  }
  return seen;
}

Array relative_attention(const RelativeInputs& in, const Marks& seen, const HeadLayout& layout,
                         std::int64_t cache_tokens, double scale) {
  const std::int64_t width = layout.head_width, keys = layout.kv_heads * width;
  const std::int64_t context = cache_tokens + (layout.segments - 1) * layout.tokens;
  Array y(layout.rows() * layout.query_width(), 0.0);
  each_head(layout, layout.heads, [&](std::int64_t segment, int h, std::int64_t row) {
    const std::int64_t b = segment / layout.segments, s = segment % layout.segments;
    const int kv = h / layout.group();
    for (std::int64_t t = 0; t < layout.tokens; ++t) {
      const double* query = &in.qkv[(row + t) * layout.qkv_width() + h * width];
      Array weights;
      std::vector<const double*> values;
      const auto read = [&](const double* key, const double* value, std::int64_t distance) {
        const double* far = &in.keys[distance * keys + kv * width];
        double score = 0;
        for (std::int64_t c = 0; c < width; ++c)
          score += (query[c] + in.content_bias[h * width + c]) * key[c] +
                   (query[c] + in.position_bias[h * width + c]) * far[c];
        weights.push_back(std::exp(scale * score));
        values.push_back(value);
      };
      for (std::int64_t m = 0; m < cache_tokens; ++m)
        if (seen[(b * (layout.segments + 1) + s) * cache_tokens + m]) {
          const double* key =
              &in.cached[(b * context + s * layout.tokens + m) * 2 * keys + kv * width];
          read(key, key + keys, cache_tokens - m + t);
        }
      for (std::int64_t u = 0; u <= t; ++u) {
        const double* own = &in.qkv[(row + u) * layout.qkv_width()];
        read(own + layout.key_column(kv), own + layout.value_column(kv), t - u);
      }
      double total = 0;
      for (const double weight : weights) total += weight;
      for (std::size_t i = 0; i < weights.size(); ++i)
        for (std::int64_t c = 0; c < width; ++c)
          y[(row + t) * layout.query_width() + h * width + c] += weights[i] / total * values[i][c];
    }
  });
  return y;
}

Array marked_attention(const MarkedInputs& in, const Marks& seen, const HeadLayout& layout,
                       const MarkedOptions& options) {
  const std::int64_t width = layout.head_width, keys = layout.kv_heads * width,
                     places = static_cast<std::int64_t>(seen.size()) / layout.batch;
  Array y(in.queries.size(), 0.0);
  each_head(layout, layout.heads, [&](std::int64_t b, int h, std::int64_t row) {
    for (std::int64_t t = 0; t < layout.tokens; ++t) {
      const std::int64_t at = (row + t) * layout.query_width() + h * width;
      double total = 0;
      Array sum(width, 0.0);
      for (std::int64_t j = 0; j < places; ++j) {
        if (!seen[b * places + j] || (options.own && j > places - layout.tokens + t)) continue;
        const std::int64_t place = (b * places + j) * keys + h / layout.group() * width;
        double score = 0;
        for (std::int64_t c = 0; c < width; ++c) score += in.queries[at + c] * in.keys[place + c];
        const double weight = std::exp(options.scale * score);
        total += weight;
        for (std::int64_t c = 0; c < width; ++c) sum[c] += weight * in.values[place + c];
      }
      for (std::int64_t c = 0; c < width && total > 0; ++c) y[at + c] = sum[c] / total;
    }
  });
  return y;
}

// All places sorted, by how near they are and then by which comes first.
Array retrieval_attention(const RetrievalInputs& in, const Marks& seen, const HeadLayout& layout,
                          std::int64_t retrieval_tokens, const RetrievalOptions& options) {
  const std::int64_t width = layout.head_width, keys = layout.kv_heads * width;
  const std::int64_t context = retrieval_tokens + (layout.segments - 1) * layout.tokens;
  Array y(layout.rows() * layout.query_width());
  each_head(layout, layout.heads, [&](std::int64_t segment, int h, std::int64_t row) {
    const std::int64_t b = segment / layout.segments, s = segment % layout.segments;
    const int kv = h / layout.group();
    for (std::int64_t t = 0; t < layout.tokens; ++t) {
      const double* query = &in.qkv[(row + t) * layout.qkv_width() + h * width];
      double square = kLengthEps;
      for (std::int64_t c = 0; c < width; ++c) square += query[c] * query[c];
      struct Place {
        double score;
        const double* value;
      };
      std::vector<Place> places;
      for (std::int64_t m = 0; m < retrieval_tokens; ++m) {
        if (!seen[(b * (layout.segments + 1) + s) * retrieval_tokens + m]) continue;
        const double* key =
            &in.pairs[(b * context + s * layout.tokens + m) * 2 * keys + kv * width];
        double score = 0;
        for (std::int64_t c = 0; c < width; ++c) score += query[c] * key[c];
        places.push_back({.score = score / std::sqrt(square), .value = key + keys});
      }
      std::ranges::stable_sort(places, std::greater(), &Place::score);
      if (static_cast<int>(places.size()) > options.neighbours) places.resize(options.neighbours);
      double total = 0;
      for (const Place& place : places) total += std::exp(in.scale[h] * place.score);
      const bool bypass = places.empty() && options.bypass_empty;
      const double gate = bypass ? 0 : 1 / (1 + std::exp(-in.gate[h]));
      for (std::int64_t c = 0; c < width; ++c) {
        const std::int64_t at = (row + t) * layout.query_width() + h * width + c;
        double retrieved = 0;
        for (const Place& place : places)
          retrieved += std::exp(in.scale[h] * place.score) / total * place.value[c];
        y[at] = gate * retrieved + (1 - gate) * in.local[at];
      }
    }
  });
  return y;
}

double attention_reconstruction(const Array& qkv, const Places& tokens, const Places& compressed,
                                const HeadLayout& layout, double scale, double weight) {
  const std::int64_t width = layout.head_width, keys = layout.kv_heads * width;
  double loss = 0;
  each_head(layout, layout.heads, [&](std::int64_t segment, int h, std::int64_t row) {
    for (std::int64_t t = row; t < row + layout.tokens; ++t) {
      const auto read = [&](const Places& given) {
        const std::int64_t places =
            static_cast<std::int64_t>(given.seen.size()) / (layout.batch * layout.segments);
        Array y(width, 0.0);
        double total = 0;
        for (std::int64_t j = segment * places; j < (segment + 1) * places; ++j) {
          if (!given.seen[j]) continue;
          const double* key = &given.rows[j * 2 * keys + h / layout.group() * width];
          double score = 0;
          for (std::int64_t c = 0; c < width; ++c)
            score += qkv[t * layout.qkv_width() + h * width + c] * key[c];
          total += std::exp(scale * score);
          for (std::int64_t c = 0; c < width; ++c) y[c] += std::exp(scale * score) * key[keys + c];
        }
        for (double& value : y) value /= total > 0 ? total : 1;
        return y;
      };
      const Array whole = read(tokens), part = read(compressed);
      for (std::int64_t c = 0; c < width; ++c)
        loss += weight * (part[c] - whole[c]) * (part[c] - whole[c]);
    }
  });
  return loss;
}

}  // namespace infini::reference
