#include "trainer/progress.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "tensor/error.h"

namespace infini {
namespace {

constexpr const char* kWipe = "\r\033[K";

std::string formatted(const char* format, double value) {
  char digits[48];
  std::snprintf(digits, sizeof digits, format, value);
  return digits;
}

std::string bar(std::int64_t part, std::int64_t whole, int width) {
  const double done = static_cast<double>(part) / static_cast<double>(whole);
  const int filled = static_cast<int>(std::clamp(done, 0.0, 1.0) * width);
  return text("[", std::string(filled, '='), std::string(width - filled, ' '), "] ");
}

double seconds_left(const ProgressState& state) {
  const double per_step =
      state.elapsed_seconds / static_cast<double>(state.step - state.first_step);
  return per_step * static_cast<double>(state.total_steps - state.step);
}

// The line without its bar.
std::string figures(const ProgressState& state) {
  std::string line = text("step ", state.step);
  if (state.total_steps > 0) line += text("/", state.total_steps);
  if (state.total_steps > 0 && state.step > state.first_step)
    line += text("  left ", duration_text(seconds_left(state)));
  return line + text("  loss ", formatted("%.4f", state.loss), "  ppl ",
                     formatted("%.4g", std::exp(state.loss)), "  lr ",
                     formatted("%.2e", state.learning_rate), "  |g| ",
                     formatted("%.3g", state.gradient_norm), "  ",
                     count_text(state.tokens_per_second), " tok/s  ", bytes_text(state.peak_bytes));
}

}  // namespace

std::string bytes_text(std::int64_t bytes) {
  double value = static_cast<double>(bytes);
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int unit = 0;
  for (; value >= 1024 && unit < 4; ++unit) value /= 1024;
  return text(formatted(unit == 0 || value >= 100 ? "%.0f" : "%.1f", value), " ", units[unit]);
}

std::string duration_text(double seconds) {
  const auto whole = static_cast<long long>(std::max(seconds, 0.0));
  char out[48];
  if (whole < 3600) {
    std::snprintf(out, sizeof out, "%lld:%02lld", whole / 60, whole % 60);
  } else {
    std::snprintf(out, sizeof out, "%lld:%02lld:%02lld", whole / 3600, whole / 60 % 60, whole % 60);
  }
  return out;
}

std::string count_text(double count) {
  if (count < 1000) return formatted("%.0f", count);
  if (count < 1e6) return formatted("%.1fk", count / 1e3);
  return formatted("%.2fM", count / 1e6);
}

std::string progress_line(const ProgressState& state, int columns) {
  std::string line = figures(state);
  const int room = columns - static_cast<int>(line.size()) - 3;
  if (state.total_steps > 0 && room >= 10)
    line = bar(state.step, state.total_steps, std::min(room, 30)) + line;
  return line.substr(0, static_cast<std::size_t>(std::max(columns, 0)));
}

std::string reading_line(const ReadingState& state, int columns) {
  std::string line = text("read ", count_text(static_cast<double>(state.tokens)), " of ",
                          count_text(static_cast<double>(state.total_tokens)), " tokens");
  if (state.tokens > 0 && state.elapsed_seconds > 0) {
    const double rate = static_cast<double>(state.tokens) / state.elapsed_seconds;
    line += text("  ", count_text(rate), " tok/s  left ",
                 duration_text(static_cast<double>(state.total_tokens - state.tokens) / rate));
  }
  const int room = columns - static_cast<int>(line.size()) - 3;
  if (state.total_tokens > 0 && room >= 10)
    line = bar(state.tokens, state.total_tokens, std::min(room, 30)) + line;
  return line.substr(0, static_cast<std::size_t>(std::max(columns, 0)));
}

RedrawnLine::RedrawnLine() : terminal_(isatty(STDERR_FILENO) != 0) {}

void RedrawnLine::finish() {
  if (drawn_) std::fputc('\n', stderr);
  drawn_ = false;
}

int RedrawnLine::columns() const {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

void RedrawnLine::draw(const std::function<std::string()>& line, bool always) {
  if (!terminal_) return;
  const auto now = std::chrono::steady_clock::now();
  if (drawn_ && !always && now - last_drawn_ < std::chrono::milliseconds(100)) return;
  const auto room = static_cast<std::size_t>(columns() - 1);
  std::fprintf(stderr, "%s%s", kWipe, line().substr(0, room).c_str());
  std::fflush(stderr);
  drawn_ = true;
  last_drawn_ = now;
}

void Progress::update(const ProgressState& state) {
  const bool last = state.step == state.total_steps;
  line_.draw([&] { return progress_line(state, line_.columns() - 1); }, last);
  if (!line_.on_terminal() && log_every_ > 0 && (state.step % log_every_ == 0 || last))
    spdlog::info("{}", figures(state));
}

void set_up_logging() {
  spdlog::set_default_logger(spdlog::stderr_color_mt("infini"));
  spdlog::set_pattern(text(isatty(STDERR_FILENO) ? kWipe : "", "%H:%M:%S %^%v%$"));
}

}  // namespace infini
