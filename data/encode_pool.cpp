#include "data/encode_pool.h"

#include <xxhash.h>

#include <ctime>

namespace infini {
namespace {

double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

void encode(const Tokenizer& tokenizer, EncodedDocument& work) {
  const std::string& text = work.document.text;
  work.words = work.document.words();
  work.hash = XXH3_64bits(text.data(), text.size());
  const double begin = thread_seconds();
  work.tokens = tokenizer.encode(text);
  work.seconds = thread_seconds() - begin;
}

}  // namespace

EncodePool::EncodePool(const Tokenizer& tokenizer, int threads)
    : tokenizer_(tokenizer), capacity_(static_cast<std::size_t>(2 * threads)) {
  for (int i = 0; i < threads; ++i)
    threads_.emplace_back([this](std::stop_token stop) { run(stop); });
}

void EncodePool::run(std::stop_token stop) {
  while (true) {
    std::shared_ptr<Slot> slot;
    {
      std::unique_lock lock(mutex_);
      if (!changed_.wait(lock, stop, [&] { return !waiting_.empty(); })) return;
      slot = std::move(waiting_.front());
      waiting_.pop_front();
    }
    try {
      encode(tokenizer_, slot->work);
    } catch (...) {
      slot->failure = std::current_exception();
    }
    const std::lock_guard lock(mutex_);
    slot->done = true;
    changed_.notify_all();
  }
}

void EncodePool::submit(Document&& document) {
  auto slot = std::make_shared<Slot>();
  slot->work.document = std::move(document);
  slots_.push_back(slot);
  const std::lock_guard lock(mutex_);
  waiting_.push_back(std::move(slot));
  changed_.notify_all();
}

EncodedDocument EncodePool::take() {
  const std::shared_ptr<Slot> slot = std::move(slots_.front());
  slots_.pop_front();
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return slot->done; });
  if (slot->failure) std::rethrow_exception(slot->failure);
  return std::move(slot->work);
}

}  // namespace infini
