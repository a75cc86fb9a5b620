#include "tests/tensor/reference.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace infini::reference {
namespace {

double sigma(double x) { return x > 0 ? x + 1 : std::exp(x); }

}  // namespace

Array linear(const Array& x, const Array& weight, std::int64_t width) {
  const std::int64_t rows = x.size() / width, outputs = weight.size() / width;
  Array y(rows * outputs, 0.0);
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t o = 0; o < outputs; ++o)
      for (std::int64_t c = 0; c < width; ++c)
        y[r * outputs + o] += x[r * width + c] * weight[o * width + c];
  return y;
}

Array add(const Array& x, const Array& y) {
  Array sum = x;
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += y[i];
  return sum;
}

Array rms_norm(const Array& x, const Array& weight, double eps) {
  const std::size_t width = weight.size();
  Array y(x.size());
  for (std::size_t r = 0; r < x.size() / width; ++r) {
    double squares = 0;
    for (std::size_t c = 0; c < width; ++c) squares += x[r * width + c] * x[r * width + c];
    const double rms = std::sqrt(squares / static_cast<double>(width) + eps);
    for (std::size_t c = 0; c < width; ++c) y[r * width + c] = x[r * width + c] / rms * weight[c];
  }
  return y;
}

Array add_bias(const Array& x, const Array& bias) {
  Array y = x;
  for (std::size_t i = 0; i < x.size(); ++i) y[i] += bias[i % bias.size()];
  return y;
}

Array head_norm(const Array& qkv, const Array& query_weight, const Array& key_weight,
                const HeadLayout& layout, double eps) {
  Array y = qkv;
  const auto width = static_cast<std::size_t>(layout.head_width);
  const auto all = static_cast<std::size_t>(layout.heads + 2 * layout.kv_heads);
  for (std::size_t item = 0; item < qkv.size() / width; ++item) {
    const int head = static_cast<int>(item % all);
    if (head >= layout.heads + layout.kv_heads) continue;
    const Array one(qkv.begin() + static_cast<std::ptrdiff_t>(item * width),
                    qkv.begin() + static_cast<std::ptrdiff_t>((item + 1) * width));
    const Array normed = rms_norm(one, head < layout.heads ? query_weight : key_weight, eps);
    std::copy(normed.begin(), normed.end(), y.begin() + static_cast<std::ptrdiff_t>(item * width));
  }
  return y;
}

Array relu(const Array& x) {
  Array y = x;
  for (double& value : y) value = std::max(value, 0.0);
  return y;
}

Array gelu(const Array& x) {
  Array y = x;
  for (double& v : y)
    v = v / 2 * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (v + 0.044715 * v * v * v)));
  return y;
}

Array swiglu(const Array& x, std::int64_t inner) {
  Array y(x.size() / 2);
  for (std::size_t i = 0; i < y.size(); ++i) {
    const std::size_t r = i / inner, c = i % inner;
    const double gate = x[r * 2 * inner + c];
    y[i] = gate / (1 + std::exp(-gate)) * x[r * 2 * inner + inner + c];
  }
  return y;
}

Array geglu(const Array& x, std::int64_t inner) {
  const Array active = gelu(x);
  Array y(x.size() / 2);
  for (std::size_t i = 0; i < y.size(); ++i) {
    const std::size_t r = i / inner, c = i % inner;
    y[i] = active[r * 2 * inner + c] * x[r * 2 * inner + inner + c];
  }
  return y;
}

Array embedding(const Ids& tokens, const Array& table, std::int64_t width) {
  Array y;
  for (const std::int32_t id : tokens)
    y.insert(y.end(), table.begin() + id * width, table.begin() + (id + 1) * width);
  return y;
}

Array rotate(const Array& qkv, const HeadLayout& layout, double base, std::int64_t first_position) {
  const std::int64_t width = layout.head_width, half = width / 2;
  Array y(layout.rows() * layout.rotated_width());
  for (std::int64_t r = 0; r < layout.rows(); ++r)
    for (int h = 0; h < layout.heads + layout.kv_heads; ++h)
      for (std::int64_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(first_position + r % layout.tokens) *
                             std::pow(base, -2.0 * static_cast<double>(i) / width);
        const double* x = &qkv[r * layout.qkv_width() + h * width];
        double* out = &y[r * layout.rotated_width() + h * width];
        out[i] = x[i] * std::cos(angle) - x[i + half] * std::sin(angle);
        out[i + half] = x[i] * std::sin(angle) + x[i + half] * std::cos(angle);
      }
  return y;
}

Array local_attention(const Array& rotated, const Array& qkv, const HeadLayout& layout,
                      double scale) {
  const std::int64_t width = layout.head_width;
  Array y(layout.rows() * layout.query_width(), 0.0);
  each_head(layout, layout.heads, [&](std::int64_t, int h, std::int64_t row) {
    const int kv = h / layout.group();
    for (std::int64_t t = 0; t < layout.tokens; ++t) {
      const double* query = &rotated[(row + t) * layout.rotated_width() + h * width];
      Array weights(t + 1);
      double total = 0;
      for (std::int64_t u = 0; u <= t; ++u) {
        const double* key = &rotated[(row + u) * layout.rotated_width() + layout.key_column(kv)];
        double score = 0;
        for (std::int64_t c = 0; c < width; ++c) score += query[c] * key[c];
        total += weights[u] = std::exp(scale * score);
      }
      for (std::int64_t u = 0; u <= t; ++u)
        for (std::int64_t c = 0; c < width; ++c)
          y[(row + t) * layout.query_width() + h * width + c] +=
              weights[u] / total *
              qkv[(row + u) * layout.qkv_width() + layout.value_column(kv) + c];
    }
  });
  return y;
}

Array join_columns(const Arrays& parts, std::int64_t rows) {
  Array y;
  for (std::int64_t r = 0; r < rows; ++r)
    for (const Array& part : parts) {
      const std::size_t width = part.size() / rows;
      y.insert(y.end(), part.begin() + r * width, part.begin() + (r + 1) * width);
    }
  return y;
}

Array take_columns(const Array& x, std::int64_t width, Columns columns) {
  Array y;
  for (auto row = x.begin(); row != x.end(); row += width)
    y.insert(y.end(), row + columns.begin, row + columns.end);
  return y;
}

Array standing_rows(const Array& x, const Marks& present, const Array& otherwise, std::int64_t rows,
                    std::int64_t width) {
  Array y = x;
  for (std::size_t i = 0; i < y.size(); ++i)
    if (!present[i / width]) y[i] = otherwise.empty() ? 0 : otherwise[i % (rows * width)];
  return y;
}

Array turn_rows(const Array& x, const Marks& present, std::int64_t batch, std::int64_t rows,
                bool back) {
  const std::int64_t places = static_cast<std::int64_t>(present.size()) / batch,
                     width = static_cast<std::int64_t>(x.size()) / (batch * rows);
  Array y = x;
  for (std::int64_t b = 0; b < batch; ++b) {
    std::int64_t zeros = 0;
    for (std::int64_t m = 0; m < places; ++m) zeros += !present[b * places + m];
    const auto begin = y.begin() + b * rows * width, end = begin + rows * width;
    std::rotate(begin, back ? end - zeros * width : begin + zeros * width, end);
  }
  return y;
}

Arrays memory_sums(const Array& qkv, const Marks& keep, const HeadLayout& layout) {
  const std::int64_t width = layout.head_width;
  Array matrix(layout.matrix_shape().size(), 0.0),
      normalizer(layout.normalizer_shape().size(), 0.0);
  each_head(layout, layout.kv_heads, [&](std::int64_t segment, int h, std::int64_t row) {
    const std::int64_t at = segment * layout.kv_heads + h;
    for (std::int64_t r = row; r < row + layout.tokens; ++r) {
      if (!keep.empty() && !keep[r]) continue;
      const double* key = &qkv[r * layout.qkv_width() + layout.key_column(h)];
      const double* value = &qkv[r * layout.qkv_width() + layout.value_column(h)];
      for (std::int64_t i = 0; i < width; ++i) {
        normalizer[at * width + i] += sigma(key[i]);
        for (std::int64_t j = 0; j < width; ++j)
          matrix[(at * width + i) * width + j] += sigma(key[i]) * value[j];
      }
    }
  });
  return {matrix, normalizer};
}

Array memory_overlap(const Array& qkv, const Array& normalizer, const Marks& keep,
                     const HeadLayout& layout, double eps) {
  const std::int64_t width = layout.head_width;
  Array overlap(layout.matrix_shape().size(), 0.0);
  each_head(layout, layout.kv_heads, [&](std::int64_t segment, int h, std::int64_t row) {
    const std::int64_t at = segment * layout.kv_heads + h;
    for (std::int64_t r = row; r < row + layout.tokens; ++r) {
      if (!keep.empty() && !keep[r]) continue;
      const double* key = &qkv[r * layout.qkv_width() + layout.key_column(h)];
      double read = 0;
      for (std::int64_t i = 0; i < width; ++i) read += sigma(key[i]) * normalizer[at * width + i];
      for (std::int64_t i = 0; i < width; ++i)
        for (std::int64_t j = 0; j < width; ++j)
          overlap[(at * width + i) * width + j] +=
              sigma(key[i]) * sigma(key[j]) / std::max(read, eps);
    }
  });
  return overlap;
}

Array memory_recall(const Array& qkv, const Array& matrix, const Array& normalizer,
                    const Array& gate, const Array& local, const HeadLayout& layout,
                    const RecallOptions& options) {
  const std::int64_t width = layout.head_width;
  Array y(local.size());
  each_head(layout, layout.heads, [&](std::int64_t segment, int h, std::int64_t row) {
    const std::int64_t at = segment * layout.kv_heads + h / layout.group();
    const double* z = &normalizer[at * width];
    const bool empty = std::all_of(z, z + width, [](double value) { return value == 0; });
    const double g = options.bypass_empty && empty ? 0 : 1 / (1 + std::exp(-gate[h]));
    for (std::int64_t r = row; r < row + layout.tokens; ++r) {
      const double* query = &qkv[r * layout.qkv_width() + h * width];
      double read = 0;
      for (std::int64_t i = 0; i < width; ++i) read += sigma(query[i]) * z[i];
      for (std::int64_t j = 0; j < width; ++j) {
        double sum = 0;
        for (std::int64_t i = 0; i < width; ++i)
          sum += sigma(query[i]) * matrix[(at * width + i) * width + j];
        const std::int64_t out = r * layout.query_width() + h * width + j;
        y[out] = g * sum / std::max(read, options.eps) + (1 - g) * local[out];
      }
    }
  });
  return y;
}

Arrays cross_entropy(const Array& x, const Array& weight, const Ids& targets, const Array& weights,
                     double scale) {
  const auto rows = static_cast<std::int64_t>(targets.size());
  const std::int64_t width = x.size() / rows, vocabulary = weight.size() / width;
  Array nll(rows, 0.0), loss(1, 0.0);
  for (std::int64_t r = 0; r < rows; ++r) {
    if (targets[r] < 0) continue;
    double sum = 0, chosen = 0;
    for (std::int64_t n = 0; n < vocabulary; ++n) {
      double logit = 0;
      for (std::int64_t c = 0; c < width; ++c) logit += x[r * width + c] * weight[n * width + c];
      sum += std::exp(logit);
      if (n == targets[r]) chosen = logit;
    }
    nll[r] = std::log(sum) - chosen;
    loss[0] += scale * (weights.empty() ? 1 : weights[r]) * nll[r];
  }
  return {loss, nll};
}

Arrays scan(const Array& overlap, const Array& sums, const Array& initial, const ScanCase& sizes,
            const Arrays& constant) {
  const auto [batch, segments, heads, width, resets, detach] = sizes;
  const std::int64_t state = heads * width * width;
  Array before(sums.size()), after(batch * state, 0.0);
  if (!initial.empty()) after = initial;
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t s = 0; s < segments; ++s) {
      const std::int64_t at = (b * segments + s) * state;
      double* now = &after[b * state];
      if (!detach.empty() && detach[s] && !constant.empty())
        std::copy_n(&constant[0][at], state, now);
      if (!resets.empty() && resets[b * segments + s])
        for (std::int64_t i = 0; i < state; ++i) now[i] = 0;
      std::copy_n(now, state, &before[at]);
      for (std::int64_t i = 0; i < state; ++i) {
        now[i] += sums[at + i];
        if (overlap.empty()) continue;
        const std::int64_t row = i / width * width, matrix = i / (width * width) * width * width;
        for (std::int64_t c = 0; c < width; ++c)
          now[i] -= overlap[at + row + c] * before[at + matrix + c * width + i % width];
      }
    }
  return {before, after};
}

}  // namespace infini::reference
