// A small store of examples over bytes.
#pragma once

#include "data/example_store.h"
#include "tests/data/fixtures.h"

namespace infini {

struct DocumentShape {
  int tokens;
  std::vector<int> summaries;  // tokens of each
};

// Document d has tokens (100 d + i) mod 200, its summary s tokens 200 + (d + s + i) mod 56, so that
// documents and summaries have no token in common. Summaries are of books and chapters in turn.
inline std::shared_ptr<const ExampleStore> example_store(const std::filesystem::path& path,
                                                         const std::vector<DocumentShape>& shapes) {
  const ByteTokenizer bytes;
  std::filesystem::create_directories(path.parent_path());
  ExampleStoreWriter writer(path, bytes, "train");
  for (std::size_t d = 0; d < shapes.size(); ++d) {
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(shapes[d].tokens));
    for (std::size_t i = 0; i < tokens.size(); ++i)
      tokens[i] = static_cast<std::int32_t>((100 * d + i) % 200);
    const std::int64_t document =
        writer.add_document("document " + std::to_string(d), shapes[d].tokens, 1, tokens);
    for (std::size_t s = 0; s < shapes[d].summaries.size(); ++s) {
      std::vector<std::int32_t> summary(static_cast<std::size_t>(shapes[d].summaries[s]));
      for (std::size_t i = 0; i < summary.size(); ++i)
        summary[i] = static_cast<std::int32_t>(200 + (d + s + i) % 56);
      writer.add_example(document, s % 2 ? SummaryLevel::kChapter : SummaryLevel::kBook,
                         {.source = "source " + std::to_string(s),
                          .text = "summary " + std::to_string(s) + " of " + std::to_string(d)},
                         summary);
    }
  }
  writer.finish(7);
  return ExampleStore::open(path);
}

}  // namespace infini
