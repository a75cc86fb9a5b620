#include "data/loader.h"

#include "tensor/error.h"

namespace infini {

BatchLoader::BatchLoader(const BatchSource& source, std::int64_t start, int first_row, int rows,
                         int ahead)
    : source_(source),
      first_row_(first_row),
      rows_(rows),
      ahead_(static_cast<std::size_t>(ahead)),
      step_(start) {
  check(ahead >= 1, "loader: must work at least 1 step ahead, got ", ahead);
  thread_ = std::jthread([this](std::stop_token stop) { work(stop); });
}

void BatchLoader::work(std::stop_token stop) {
  for (std::int64_t step = step_; !stop.stop_requested(); ++step) {
    SequenceBatch batch;
    std::exception_ptr failure;
    try {
      batch = source_.batch(step, first_row_, rows_);
    } catch (...) {
      failure = std::current_exception();
    }
    std::unique_lock lock(mutex_);
    if (failure) {
      failure_ = failure;
      changed_.notify_all();
      return;
    }
    if (!changed_.wait(lock, stop, [&] { return ready_.size() < ahead_; }))
      return;  // asked to stop
    ready_.push_back(std::move(batch));
    changed_.notify_all();
  }
}

SequenceBatch BatchLoader::next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !ready_.empty() || failure_; });
  if (ready_.empty()) std::rethrow_exception(failure_);
  SequenceBatch batch = std::move(ready_.front());
  ready_.pop_front();
  ++step_;
  changed_.notify_all();
  return batch;
}

}  // namespace infini
