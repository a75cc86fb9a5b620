#include "trainer/option_checks.h"

#include <charconv>
#include <cmath>
#include <functional>

#include "tensor/error.h"

namespace infini {
namespace {

// `shown` stands beside the option's type in its help.
CLI::Validator numbers(const std::function<bool(double)>& allowed, const std::string& expected,
                       const std::string& shown) {
  return CLI::Validator(
      [=](const std::string& given) -> std::string {
        double value = 0;
        const auto [end, fault] = std::from_chars(given.data(), given.data() + given.size(), value);
        const bool whole = fault == std::errc() && end == given.data() + given.size();
        if (whole && std::isfinite(value) && allowed(value)) return "";
        return text("got ", given.substr(0, 40), ", expected a number ", expected);
      },
      shown);
}

}  // namespace

CLI::Validator at_least(double least) {
  return numbers([=](double value) { return value >= least; }, text("of at least ", least),
                 text(">= ", least));
}

CLI::Validator above(double bound) {
  return numbers([=](double value) { return value > bound; }, text("above ", bound),
                 text("> ", bound));
}

CLI::Validator between(double least, double most) {
  return numbers([=](double value) { return value >= least && value <= most; },
                 text("from ", least, " to ", most), text(least, "..", most));
}

}  // namespace infini
