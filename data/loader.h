// Prepares the next steps of a source while the current one is being trained on.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "data/batch.h"

namespace infini {

// next() returns source.batch(step, first_row, rows) for step = start, start + 1, ... in order. One
// thread works at most `ahead` steps in advance. An exception of the source reaches the caller of
// the next() whose step it belongs to, and of every later one. The source must outlive the loader;
// one thread at a time may call next().
class BatchLoader {
 public:
  BatchLoader(const BatchSource& source, std::int64_t start, int first_row, int rows,
              int ahead = 2);
  BatchLoader(const BatchSource& source, std::int64_t start)
      : BatchLoader(source, start, 0, source.batch_rows()) {}

  SequenceBatch next();
  std::int64_t step() const { return step_; }  // of the batch that next() will return

 private:
  void work(std::stop_token stop);

  const BatchSource& source_;
  const int first_row_, rows_;
  const std::size_t ahead_;
  std::int64_t step_;

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<SequenceBatch> ready_;
  std::exception_ptr failure_;
  std::jthread thread_;  // last: it stops before anything else here goes
};

}  // namespace infini
