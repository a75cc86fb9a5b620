// Attention whose scores lie in memory as tables (attention_tables.cuh). As many segments at a time
// as make a table of so many bytes, at least one: fewer bytes make more and smaller products. Only
// for CUDA builds.
#pragma once

#include <cstdint>

namespace infini {

std::int64_t attention_table_bytes();
void set_attention_table_bytes(std::int64_t bytes);

}  // namespace infini
