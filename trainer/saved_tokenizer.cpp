#include "trainer/saved_tokenizer.h"

namespace infini {
namespace {

constexpr const char* kTokenizer = "tokenizer";

}  // namespace

NamedBuffer tokenizer_buffer(std::string& tokenizer) {
  return {.name = kTokenizer,
          .dtype = "u8",
          .shape = {static_cast<std::int64_t>(tokenizer.size())},
          .data = tokenizer.data(),
          .bytes = tokenizer.size()};
}

std::string saved_tokenizer(const Checkpoint& checkpoint) {
  std::string tokenizer;
  for (const BufferInfo& info : checkpoint.buffers()) {
    if (info.name != kTokenizer) continue;
    tokenizer.resize(static_cast<std::size_t>(info.shape.at(0)));
    const NamedBuffer buffer = tokenizer_buffer(tokenizer);
    checkpoint.read({&buffer, 1});
  }
  return tokenizer;
}

}  // namespace infini
