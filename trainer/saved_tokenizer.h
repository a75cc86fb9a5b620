// The tokenizer inside a checkpoint: one more buffer of its bytes.
#pragma once

#include <string>

#include "trainer/checkpoint.h"

namespace infini {

// The buffer to save or read a serialised tokenizer by. It points into `tokenizer`.
NamedBuffer tokenizer_buffer(std::string& tokenizer);

// The tokenizer that a checkpoint holds, serialised; empty when it holds none.
std::string saved_tokenizer(const Checkpoint& checkpoint);

}  // namespace infini
