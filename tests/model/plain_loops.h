// Parts of a model by plain loops over its parameters in fp64, token by token, for oracles of whole
// architectures: no packed tensors, no batches.
#pragma once

#include <numbers>

#include "tests/model/tiny_model.h"

namespace infini {

class PlainLoops {
 public:
  using Array = std::vector<double>;
  using Grid = std::vector<Array>;  // a vector of every token

  explicit PlainLoops(const InfiniTransformer& model) : model_(model) {}

  const ModelConfig& config() const { return model_.config(); }
  Array values(const std::string& name) const {
    return model_.parameters()[name].value.to_vector<double>();
  }
  // A row of a table.
  Array row(const std::string& name, std::int64_t index) const {
    const Array table = values(name);
    const std::int64_t width = config().d_model;
    return {table.begin() + index * width, table.begin() + (index + 1) * width};
  }
  Array times(const std::string& name, const Array& x) const {
    const Array weight = values(name);
    Array y(weight.size() / x.size(), 0.0);
    for (std::size_t o = 0; o < y.size(); ++o)
      for (std::size_t c = 0; c < x.size(); ++c) y[o] += weight[o * x.size() + c] * x[c];
    return y;
  }
  Grid norm(const Grid& h, const std::string& name) const {
    const Array weight = values(name);
    Grid y = h;
    for (Array& x : y) {
      double square = 0;
      for (const double value : x) square += value * value;
      const double rms = std::sqrt(square / static_cast<double>(x.size()) + config().norm_eps);
      for (std::size_t c = 0; c < x.size(); ++c) x[c] *= weight[c] / rms;
    }
    return y;
  }
  // attention(x, prefix): what a block of this layer adds to the residual stream, which goes on
  // through the feed-forward part (gelu).
  template <class Attention>
  Grid block(const Grid& x, int layer, const Attention& attention) const {
    const std::string prefix = text("blocks.", layer, ".");
    return fed_forward(
        sum(x, attention(norm(x, prefix + "attention_norm.weight"), prefix + "attention.")),
        prefix);
  }
  // What the feed-forward part of a block makes of the residual stream.
  Grid fed_forward(const Grid& h, const std::string& prefix) const {
    const Grid middle = norm(h, prefix + "feed_forward_norm.weight");
    Grid down;
    for (const Array& each : middle) {
      Array inner = times(prefix + "feed_forward.up.weight", each);
      for (double& z : inner)
        z *= 0.5 * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (z + 0.044715 * z * z * z)));
      down.push_back(times(prefix + "feed_forward.down.weight", inner));
    }
    return sum(h, down);
  }
  // Head h of x at position p, turned: the pair (i, i + K / 2) by the angle p base^(-2 i / K).
  Array turned(const Array& x, int h, std::int64_t p) const {
    const int width = config().head_width(), half = width / 2;
    Array y(width);
    for (int i = 0; i < half; ++i) {
      const double angle = static_cast<double>(p) * std::pow(config().rope_base, -2.0 * i / width);
      const double a = x[h * width + i], b = x[h * width + half + i];
      y[i] = a * std::cos(angle) - b * std::sin(angle);
      y[half + i] = a * std::sin(angle) + b * std::cos(angle);
    }
    return y;
  }
  static Array sum(const Array& a, const Array& b) {
    Array c = a;
    for (std::size_t i = 0; i < b.size(); ++i) c[i] += b[i];
    return c;
  }
  static Grid sum(const Grid& a, const Grid& b) {
    Grid c;
    for (std::size_t t = 0; t < b.size(); ++t) c.push_back(sum(a[t], b[t]));
    return c;
  }

 private:
  const InfiniTransformer& model_;
};

}  // namespace infini
