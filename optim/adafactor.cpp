#include "optim/adafactor.h"

#include <cmath>
#include <numeric>

#include "tensor/ops/elementwise.h"
#include "tensor/parallel.h"

namespace infini {
namespace {

// Sums are taken in fp64 over pieces of a size that no number of threads changes, then over the
// pieces.
constexpr std::int64_t kPiece = 1 << 15;

// The sum of term(i) over [begin, end), as eight interleaved sums.
template <class Term>
double sum_of(std::int64_t begin, std::int64_t end, Term term) {
  constexpr int kLanes = 8;
  double lanes[kLanes] = {};
  std::int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += term(i + lane);
  for (; i < end; ++i) lanes[0] += term(i);
  return std::accumulate(lanes, lanes + kLanes, 0.0);
}

template <class T>
double square_sum_of(const T* values, std::int64_t begin, std::int64_t end) {
  return sum_of(begin, end, [=](std::int64_t i) {
    const double value = values[i];
    return value * value;
  });
}

// What holds for all updates of a step.
struct Rule {
  double gradient_scale, keep;
  const AdafactorConfig& config;
  const TensorGroup* group;
};

// Adds up what processes find in their parts of one parameter.
class WholeParameter {
 public:
  WholeParameter(const Rule& rule, const AdafactorKernels::Update& args)
      : group_(args.division.is_part() ? rule.group : nullptr), division_(args.division) {}

  std::int64_t count(std::int64_t here) const { return group_ ? here * division_.count : here; }
  // Elements of this process along an axis -> of the whole.
  std::int64_t extent(std::int64_t here, int axis) const {
    return group_ && division_.axis == axis ? here * division_.count : here;
  }
  // fp64 sums over all elements, or over those along an axis, each as many processes find them.
  void sum(const Tensor& sums) const {
    if (!group_) return;
    group_->sum(sums);
    group_->wait();
  }
  void sum_along(int axis, const Tensor& sums) const {
    if (division_.axis == axis) sum(sums);
  }

 private:
  const TensorGroup* group_;
  Division division_;
};

Tensor scalar_of(double value) { return Tensor::of(std::vector<double>{value}, {1}); }

// The update U = G / sqrt(V), before clipping, and the sum of its squares.
struct Scaled {
  Tensor update;
  double square_sum = 0;
};

template <class T>
Scaled scale_by_elements(const Rule& rule, const AdafactorKernels::Update& args) {
  const Scaled result{.update = Tensor::empty_like(args.parameter)};
  const T* const gradient = args.gradient.data<T>();
  T* const square = args.square.data<T>();
  T* const update = result.update.data<T>();
  const T scale(rule.gradient_scale), keep(rule.keep), fresh(1 - rule.keep);
  const T epsilon(rule.config.epsilon_squared);

  const std::int64_t size = args.parameter.size();
  std::vector<double> sums((size + kPiece - 1) / kPiece);
  parallel_ranges(size, kPiece, [&](std::int64_t begin, std::int64_t end) {
#pragma GCC ivdep
    for (std::int64_t i = begin; i < end; ++i) {
      const T g = scale * gradient[i];
      square[i] = keep * square[i] + fresh * (g * g + epsilon);
      update[i] = g / std::sqrt(square[i]);
    }
    sums[begin / kPiece] = square_sum_of(update, begin, end);
  });
  return {result.update, std::accumulate(sums.begin(), sums.end(), 0.0)};
}

// Moves running means by the sums of `count` new numbers each.
template <class T>
void move_means(const Rule& rule, const Tensor& means, const Tensor& sums, std::int64_t count) {
  T* const mean = means.data<T>();
  const double* const sum = sums.data<double>();
  for (std::int64_t i = 0; i < means.size(); ++i)
    mean[i] = T(rule.keep * mean[i] + (1 - rule.keep) * (sum[i] / static_cast<double>(count)));
}

// Moves the running means of rows and columns of G^2 + epsilon_squared.
template <class T>
void update_means(const Rule& rule, const AdafactorKernels::Update& args,
                  const WholeParameter& whole, std::int64_t rows, std::int64_t columns,
                  std::int64_t piece_rows) {
  const T* const gradient = args.gradient.data<T>();
  const double scale = rule.gradient_scale, epsilon = rule.config.epsilon_squared;

  const std::int64_t pieces = (rows + piece_rows - 1) / piece_rows;
  const Tensor partial = Tensor::zeros({pieces, columns}, DType::kFloat64);
  const Tensor row_sums = Tensor::empty({rows}, DType::kFloat64);
  parallel_ranges(rows, piece_rows, [&](std::int64_t begin, std::int64_t end) {
    double* const column_sums = partial.data<double>() + begin / piece_rows * columns;
    for (std::int64_t r = begin; r < end; ++r) {
      const T* const row = gradient + r * columns;
      const auto square = [=](std::int64_t c) {
        const double g = scale * row[c];
        return g * g + epsilon;
      };
#pragma GCC ivdep
      for (std::int64_t c = 0; c < columns; ++c) column_sums[c] += square(c);
      row_sums.data<double>()[r] = sum_of(0, columns, square);
    }
  });
  double* const sums = partial.data<double>();
  for (std::int64_t piece = 1; piece < pieces; ++piece)
    for (std::int64_t c = 0; c < columns; ++c) sums[c] += sums[piece * columns + c];
  const Tensor column_sums = partial.slice(0, 1).reshape({columns});
  whole.sum_along(0, column_sums);
  whole.sum_along(1, row_sums);
  move_means<T>(rule, args.column_mean, column_sums, whole.extent(rows, 0));
  move_means<T>(rule, args.row_mean, row_sums, whole.extent(columns, 1));
}

template <class T>
Scaled scale_by_factors(const Rule& rule, const AdafactorKernels::Update& args,
                        const WholeParameter& whole) {
  const auto [rows, columns] = args.parameter.dims<2>();
  const std::int64_t piece_rows = std::max<std::int64_t>(1, kPiece / columns);
  update_means<T>(rule, args, whole, rows, columns, piece_rows);

  // 1 / sqrt(V[r, c]) = row_factor[r] * column_factor[c].
  const T* const row_mean = args.row_mean.data<T>();
  const T* const column_mean = args.column_mean.data<T>();
  const Tensor row_sum =
      scalar_of(sum_of(0, rows, [=](std::int64_t r) { return double{row_mean[r]}; }));
  whole.sum_along(0, row_sum);
  const double mean = row_sum.item() / static_cast<double>(whole.extent(rows, 0));
  const Tensor column_factors = Tensor::empty_like(args.column_mean);
  T* const column_factor = column_factors.data<T>();
  for (std::int64_t c = 0; c < columns; ++c)
    column_factor[c] = T(1 / std::sqrt(double{column_mean[c]}));

  const Scaled result{.update = Tensor::empty_like(args.parameter)};
  std::vector<double> sums((rows + piece_rows - 1) / piece_rows);
  parallel_ranges(rows, piece_rows, [&, columns = columns](std::int64_t begin, std::int64_t end) {
    double sum = 0;
    for (std::int64_t r = begin; r < end; ++r) {
      const T* const gradient = args.gradient.data<T>() + r * columns;
      T* const update = result.update.data<T>() + r * columns;
      const T row_factor(rule.gradient_scale * std::sqrt(mean / double{row_mean[r]}));
#pragma GCC ivdep
      for (std::int64_t c = 0; c < columns; ++c)
        update[c] = gradient[c] * row_factor * column_factor[c];
      sum += square_sum_of(update, 0, columns);
    }
    sums[begin / piece_rows] = sum;
  });
  return {result.update, std::accumulate(sums.begin(), sums.end(), 0.0)};
}

template <class T>
double square_sum_of(const Tensor& values) {
  const T* const data = values.data<T>();
  std::vector<double> sums((values.size() + kPiece - 1) / kPiece);
  parallel_ranges(values.size(), kPiece, [&](std::int64_t begin, std::int64_t end) {
    sums[begin / kPiece] = square_sum_of(data, begin, end);
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

template <class T>
void update_parameter(const Rule& rule, const AdafactorKernels::Update& args) {
  const std::int64_t size = args.parameter.size();
  if (size == 0) return;
  const AdafactorConfig& config = rule.config;
  const WholeParameter whole(rule, args);
  const auto [scaled, square_sum] =
      args.square ? scale_by_elements<T>(rule, args) : scale_by_factors<T>(rule, args, whole);
  const Tensor squares = Tensor::of(
      std::vector{square_sum, args.relative ? square_sum_of<T>(args.parameter) : 0.0}, {2});
  whole.sum(squares);
  const auto root_mean_square = [&](int which) {
    return std::sqrt(squares.data<double>()[which] / static_cast<double>(whole.count(size)));
  };
  double rate = args.learning_rate / std::max(1.0, root_mean_square(0) / config.clip_threshold);
  if (args.relative) rate *= std::max(config.min_scale, root_mean_square(1));

  const T* const update = scaled.template data<T>();
  T* const x = args.parameter.data<T>();
  const T decay(args.learning_rate * args.weight_decay);
  if (!args.momentum) {
    const T step(rate);
    parallel_ranges(size, kElementGrain, [=](std::int64_t begin, std::int64_t end) {
#pragma GCC ivdep
      for (std::int64_t i = begin; i < end; ++i) x[i] -= step * update[i] + decay * x[i];
    });
    return;
  }
  T* const momentum = args.momentum.data<T>();
  const T keep(config.momentum), fresh((1 - config.momentum) * rate);
  parallel_ranges(size, kElementGrain, [=](std::int64_t begin, std::int64_t end) {
#pragma GCC ivdep
    for (std::int64_t i = begin; i < end; ++i) {
      momentum[i] = keep * momentum[i] + fresh * update[i];
      x[i] -= momentum[i] + decay * x[i];
    }
  });
}

class CpuAdafactor final : public AdafactorKernels {
 public:
  void update(const Step& step) const override {
    const Rule rule{step.gradient_scale.item(), step.keep, step.config, step.group};
    if (!std::isfinite(rule.gradient_scale)) return;
    for (const Update& update : step.updates)
      dispatch_accumulator(update.parameter.dtype(), [&]<class T>() {
        update_parameter<T>(rule, update);
        if (update.value) convert_into(update.value, update.parameter);
      });
  }
};

const CpuAdafactor cpu_adafactor;

bool is_factored(const Shape& shape, std::int64_t from) {
  return shape.rank() == 2 && shape[0] >= from && shape[1] >= from;
}

}  // namespace

Adafactor::Adafactor(const OptimConfig& config, const Parameters& parameters, const Owns& owns,
                     const TensorGroup* group)
    : Optimizer(config, parameters, owns), config_(config.adafactor), group_(group) {}

std::vector<StatePart> Adafactor::parts_of(const AdafactorConfig& config, const Shape& parameter,
                                           const Division& division) {
  std::vector<StatePart> parts{{"square", parameter, division}};
  if (is_factored(division.whole(parameter), config.factored_from)) {
    const auto mean_along = [&](const char* name, int axis) {
      Division one{};
      if (division.axis == axis)
        one = {.axis = 0, .count = division.count, .index = division.index};
      return StatePart{name, {parameter[axis]}, one};
    };
    parts = {mean_along("row_mean", 0), mean_along("column_mean", 1)};
  }
  if (config.momentum > 0) parts.push_back({"momentum", parameter, division});
  return parts;
}

void Adafactor::update(double rate_factor, const Tensor& gradient_scale) const {
  std::vector<AdafactorKernels::Update> updates;
  for (const Slot& slot : slots_)
    updates.push_back({.parameter = slot.parameter.master,
                       .gradient = slot.parameter.gradient,
                       .row_mean = slot.part("row_mean"),
                       .column_mean = slot.part("column_mean"),
                       .square = slot.part("square"),
                       .momentum = slot.part("momentum"),
                       .value = slot.value_copy(),
                       .learning_rate = rate_factor * slot.settings.learning_rate,
                       .weight_decay = slot.settings.weight_decay,
                       .relative = slot.settings.relative,
                       .division = slot.parameter.division});
  on<cpu_adafactor, cuda_adafactor>(device_).update(
      {.updates = updates,
       .gradient_scale = gradient_scale,
       .keep = 1 - std::pow(static_cast<double>(steps() + 1), -config_.decay_exponent),
       .config = config_,
       .group = group_});
}

}  // namespace infini
