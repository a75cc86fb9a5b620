// Unicode's normal form C as Hugging Face's tokenizers know it, which is that of Unicode 9.
#pragma once

#include <string>
#include <string_view>

namespace infini {

// `text` with every character composed, in time proportional to its length. Bytes that are not
// UTF-8 stay as they are, and so do characters that came after Unicode 9. The view is of `text`
// itself where nothing changes, else of `storage`.
std::string_view composed_text(std::string_view text, std::string& storage);

}  // namespace infini
