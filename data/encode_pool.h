// Encodes documents on several threads and gives them back in order.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "data/corpus.h"
#include "data/tokenizer.h"

namespace infini {

struct EncodedDocument {
  Document document;
  std::int64_t words = 0;
  std::uint64_t hash = 0;  // xxh3 of the text
  std::vector<std::int32_t> tokens;
  double seconds = 0;  // processor time of encode()
};

// The caller submits and takes on one thread. Holds at most `capacity` documents.
class EncodePool {
 public:
  EncodePool(const Tokenizer& tokenizer, int threads);

  bool full() const { return slots_.size() >= capacity_; }
  bool empty() const { return slots_.empty(); }
  void submit(Document&& document);  // not when full
  EncodedDocument take();            // the oldest one; waits for it; not when empty

 private:
  struct Slot {
    EncodedDocument work;
    bool done = false;
    std::exception_ptr failure;
  };
  void run(std::stop_token stop);

  const Tokenizer& tokenizer_;
  const std::size_t capacity_;
  std::deque<std::shared_ptr<Slot>> slots_;  // in order of submission; the caller's only

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<std::shared_ptr<Slot>> waiting_;
  std::vector<std::jthread> threads_;  // last: they stop before anything else here goes
};

}  // namespace infini
