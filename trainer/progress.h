// How far a run is: one line that is redrawn on a terminal, a log line now and then elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

namespace infini {

struct ProgressState {
  std::int64_t step = 0;
  std::int64_t total_steps = 0;  // 0: open end, no bar and no time left
  double elapsed_seconds = 0;    // of this process
  std::int64_t first_step = 0;   // step at which this process began
  double tokens_per_second = 0;
  double loss = 0;  // per token, natural logarithm
  double learning_rate = 0;
  double gradient_norm = 0;
  std::int64_t peak_bytes = 0;
};

// "1.5 GiB", "1:02:03", "12.3k": as people read them.
std::string bytes_text(std::int64_t bytes);
std::string duration_text(double seconds);
std::string count_text(double count);

// The line, at most `columns` wide: the bar gives way first, then the end of the line.
std::string progress_line(const ProgressState& state, int columns);

struct ReadingState {
  std::int64_t tokens = 0, total_tokens = 0;
  double elapsed_seconds = 0;
};
// The same of a text that is read: "[====    ] read 12.3k of 500.0k tokens  45.2k tok/s  left
// 0:11".
std::string reading_line(const ReadingState& state, int columns);

// A line on stderr that each draw() replaces, at most ten times a second; nothing away from a
// terminal. The last drawn line is left standing.
class RedrawnLine {
 public:
  RedrawnLine();
  explicit RedrawnLine(bool terminal) : terminal_(terminal) {}
  ~RedrawnLine() { finish(); }
  RedrawnLine(const RedrawnLine&) = delete;
  RedrawnLine& operator=(const RedrawnLine&) = delete;

  bool on_terminal() const { return terminal_; }
  int columns() const;
  // `always`: even if the last draw was a moment ago.
  void draw(const std::function<std::string()>& line, bool always = false);
  void finish();  // what is printed next begins on a line of its own

 private:
  bool terminal_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point last_drawn_{};
};

class Progress {
 public:
  // Draws on stderr if it is a terminal; otherwise logs the line of every `log_every`th step.
  explicit Progress(std::int64_t log_every) : log_every_(log_every) {}
  Progress(bool terminal, std::int64_t log_every) : line_(terminal), log_every_(log_every) {}

  void update(const ProgressState& state);
  void finish() { line_.finish(); }

 private:
  RedrawnLine line_;
  std::int64_t log_every_;
};

// Sends spdlog to stderr; on a terminal each line wipes the progress line before it. Call in main.
void set_up_logging();

}  // namespace infini
