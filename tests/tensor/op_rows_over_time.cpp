// Rows of the op table: what goes from token to token, and the heads of Megalodon.
#include "tensor/ops/complex_average.h"
#include "tensor/ops/shared_heads.h"
#include "tensor/ops/timestep_norm.h"
#include "tests/tensor/op_table.h"

namespace infini {
namespace {

using reference::Array;
using reference::Arrays;
using reference::Marks;
using reference::TimeCase;
using In = const std::vector<Tensor>&;
using Plain = const Arrays&;

// On the device of the inputs; an empty tensor for no marks.
Tensor marks(const Marks& values, const Shape& shape, In in) {
  return values.empty() ? Tensor{} : Tensor::of(values, shape).to(in[0].device());
}
ScanBorders borders(const TimeCase& n, In in) {
  return {.resets = marks(n.resets, {n.layout.batch, n.layout.segments}, in), .detach = n.detach};
}
Marks holes(std::int64_t count, int every) {
  Marks result(count, 1);
  for (std::int64_t i = 0; i < count; i += every) result[i] = 0;
  return result;
}
Input state(const Shape& shape, double low = -1.5, double high = 1.5) {
  return {.shape = shape, .role = Role::kState, .low = low, .high = high};
}

// `tokens` that stand before the text in each batch row, with moments as an input; or none.
OpCase norm_case(const std::string& name, const TimeCase& n, std::int64_t width, int groups,
                 double tokens = 0) {
  constexpr double kEps = 0.01;
  const Array before(n.layout.batch, tokens);
  std::vector<Input> inputs{{.shape = {n.layout.rows(), width}}, state({width}), state({width})};
  if (tokens > 0) inputs.push_back(state({n.layout.batch, groups, 2}, 0.5));
  const auto given = [](Plain in) {
    static const Array nothing;
    return reference::NormInputs{in[0], in[1], in[2], in.size() > 3 ? in[3] : nothing};
  };
  return {name, inputs,
          [=](In in) {
            TimestepStatistics statistics;
            if (tokens > 0)
              statistics = {
                  .tokens =
                      Tensor::of(before, {n.layout.batch, 1}).to(in[3].dtype()).to(in[0].device()),
                  .moments = in[3]};
            const TimestepNormed out =
                timestep_norm(in[0], in[1], in[2], statistics, marks(n.keep, {n.layout.rows()}, in),
                              borders(n, in), n.layout, groups, kEps);
            return std::vector{out.y, out.after.moments};
          },
          [=](Plain in, Plain constant) {
            return reference::timestep_norm(given(in), given(constant), n, before, groups, kEps);
          }};
}

OpCase average_case(const std::string& name, const TimeCase& n, std::int64_t width,
                    std::int64_t averages, bool has_before) {
  std::vector<Input> inputs{{.shape = {n.layout.rows(), width}},
                            state({width, averages}),
                            state({width, averages}),
                            state({width}),
                            state({width}),
                            state({width, averages, 2})};
  if (has_before) inputs.push_back(state({n.layout.batch, width, averages, 2}));
  const auto given = [](Plain in) {
    static const Array nothing;
    return reference::AverageInputs{
        in[0], in[1], in[2], in[3], in[4], in[5], in.size() > 6 ? in[6] : nothing};
  };
  return {name, inputs,
          [=](In in) {
            const Averaged out = complex_average(
                in[0],
                {.alpha = in[1], .delta = in[2], .frequency = in[3], .skip = in[4], .eta = in[5]},
                has_before ? in[6] : Tensor{}, marks(n.keep, {n.layout.rows()}, in), borders(n, in),
                n.layout);
            return std::vector{out.y, out.after};
          },
          [=](Plain in, Plain constant) {
            return reference::complex_average(given(in), given(constant), n);
          }};
}

OpCase heads_case(const std::string& name, const HeadLayout& n) {
  const Input rows{.shape = {n.rows(), n.query_width()}}, weight = state({n.query_width()});
  return {name,
          {rows, rows, weight, weight, weight, weight, weight, weight},
          [=](In in) {
            return std::vector{shared_heads(in[0], in[1],
                                            {.z_bias = in[2],
                                             .query_scale = in[3],
                                             .query_shift = in[4],
                                             .key_scale = in[5],
                                             .key_shift = in[6],
                                             .value_bias = in[7]},
                                            n)};
          },
          [=](Plain in, Plain) { return Arrays{reference::shared_heads(in, n)}; }};
}

OpCase gate_case(const std::string& name, std::int64_t rows, std::int64_t width) {
  return {name,
          {{.shape = {rows, width}}, state({width}), {.shape = {rows, width}}},
          [](In in) { return std::vector{gated_heads(in[0], in[1], in[2])}; },
          [](Plain in, Plain) { return Arrays{reference::gated_heads(in[0], in[1], in[2])}; }};
}

}  // namespace

std::vector<OpCase> op_rows_over_time() {
  const HeadLayout text{.batch = 2, .segments = 3, .tokens = 5},
      longer{.batch = 1, .segments = 2, .tokens = 300},
      heads{.batch = 2, .segments = 1, .tokens = 5, .heads = 3, .kv_heads = 3, .head_width = 4},
      wide{.batch = 1, .segments = 1, .tokens = 300, .heads = 2, .kv_heads = 2, .head_width = 66};
  const TimeCase plain{text, {}, {}, {}}, padded{text, holes(30, 4), {}, {}},
      resets{text, holes(30, 7), {0, 1, 0, 1, 0, 1}, {}},
      detached{text, holes(30, 7), {0, 0, 0, 0, 1, 0}, {0, 1, 1}}, cut{text, {}, {}, {1, 0, 0}},
      far{longer, holes(600, 11), {0, 1}, {}}, far_detached{longer, {}, {}, {0, 1}};
  return {
      norm_case("timestep_norm", plain, 12, 3),
      norm_case("timestep_norm of one group after a text", plain, 6, 1, 4),
      norm_case("timestep_norm of groups of one channel", plain, 3, 3),
      norm_case("timestep_norm with padding after a text", padded, 12, 2, 3),
      norm_case("timestep_norm where padding comes first", padded, 12, 2),
      norm_case("timestep_norm with resets after a text", resets, 12, 3, 7),
      norm_case("timestep_norm detached after a text", detached, 12, 3, 7),
      norm_case("timestep_norm detached from the text before it", cut, 12, 3, 2),
      norm_case("timestep_norm of 600 tokens", far, 10, 2, 5),
      norm_case("timestep_norm of 600 tokens, detached", far_detached, 10, 2),
      average_case("complex_average", plain, 6, 4, false),
      average_case("complex_average of one", plain, 6, 1, true),
      average_case("complex_average of 32 after a text", plain, 3, 32, true),
      average_case("complex_average with padding after a text", padded, 5, 5, true),
      average_case("complex_average with resets after a text", resets, 6, 3, true),
      average_case("complex_average detached after a text", detached, 6, 4, true),
      average_case("complex_average detached from the text before it", cut, 6, 4, true),
      average_case("complex_average of 600 tokens", far, 9, 16, true),
      average_case("complex_average of 600 tokens, detached", far_detached, 3, 16, false),
      heads_case("shared_heads", heads),
      heads_case("shared_heads of 300 rows", wide),
      gate_case("gated_heads", 6, 10),
      gate_case("gated_heads of 300 rows", 300, 70),
  };
}

}  // namespace infini
