// What the command line takes of numbers; refusals say what came and what was expected. None takes
// what is not finite.
#pragma once

#include <CLI/CLI.hpp>

namespace infini {

CLI::Validator at_least(double least);
CLI::Validator above(double bound);
CLI::Validator between(double least, double most);

}  // namespace infini
