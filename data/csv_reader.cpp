#include "data/csv_reader.h"

#include <algorithm>

#include "tensor/error.h"

namespace infini {

CsvReader::CsvReader(const std::filesystem::path& path, std::int64_t longest)
    : path_(path.string()), lines_(path, longest), longest_(longest) {}

bool CsvReader::read_line(std::string& text) {
  if (!lines_.next(text)) return false;
  bytes_ += static_cast<std::int64_t>(text.size()) + 1;
  check<DataError>(!lines_.too_long() && bytes_ <= longest_ + 1, path_, ":",
                   std::max<std::int64_t>(line_, 1), ": a record of more than ", longest_,
                   " bytes; is a quote left open?");
  return true;
}

// The field whose opening quote stands before `at`; leaves `at` behind the closing one, in the line
// that has it.
void CsvReader::quoted(std::string& text, std::size_t& at, std::string& field) {
  const std::int64_t opened = lines_.number();
  while (true) {
    const std::size_t quote = text.find('"', at);
    field.append(text, at, quote - at);
    if (quote == text.npos) {
      field += '\n';
      at = 0;
      check<DataError>(read_line(text), path_, ":", opened,
                       ": a quote opens on this line and is never closed");
    } else if (text.compare(quote, 2, "\"\"") == 0) {
      field += '"';
      at = quote + 2;
    } else {
      at = quote + 1;
      return;
    }
  }
}

bool CsvReader::next(std::vector<std::string>& fields) {
  fields.clear();
  std::string text;
  do {
    bytes_ = 0;
    line_ = lines_.number() + 1;
    if (!read_line(text)) return false;
    if (line_ == 1 && text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
  } while (text.empty() || text == "\r");

  for (std::size_t at = 0;;) {
    std::string& field = fields.emplace_back();
    if (at < text.size() && text[at] == '"') {
      quoted(text, ++at, field);
      if (at < text.size() && text[at] == '\r' && at + 1 == text.size()) ++at;
      check<DataError>(at == text.size() || text[at] == ',', path_, ":", lines_.number(),
                       ": text behind the closing quote of a field; expected a comma or the end of "
                       "the line");
    } else {
      const std::size_t end = std::min(text.find(',', at), text.size());
      field = text.substr(at, end - at);
      at = end;
      if (at == text.size() && field.ends_with('\r')) field.pop_back();
      check<DataError>(field.find('"') == field.npos, path_, ":", lines_.number(),
                       ": a quote inside a field that does not begin with one");
    }
    if (at == text.size()) return true;
    ++at;
  }
}

}  // namespace infini
