// The page that lies beside an export with its memory.
#pragma once

#include <string>

#include "model/config.h"

namespace infini {

// Markdown: what the names are, and what a reader must compute with them.
std::string export_page(const ModelConfig& model);

}  // namespace infini
