#include "trainer/reproduce_config.h"

#include <algorithm>
#include <ranges>
#include <set>
#include <span>

#include "trainer/config_reader.h"

namespace infini {
namespace {

namespace fs = std::filesystem;

template <class Named>
std::vector<std::string_view> names_of(const std::vector<Named>& all) {
  std::vector<std::string_view> names;
  for (const Named& one : all) names.push_back(one.name);
  return names;
}

bool contains(const std::vector<std::string_view>& names, std::string_view name) {
  return std::ranges::find(names, name) != names.end();
}

// Names become folders.
template <class Named>
void check_names(const std::vector<Named>& all, const char* key) {
  const auto plain = [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_'; };
  std::set<std::string_view> seen;
  for (const std::string_view name : names_of(all)) {
    check<ConfigError>(!name.empty() && std::ranges::all_of(name, plain), key, ": name \"", name,
                       "\" must be letters, digits, - and _");
    check<ConfigError>(seen.insert(name).second, key, ": two are named ", name);
  }
}

// Files beside it that are tables as well.
std::string tables_in(const fs::path& folder) {
  std::set<std::string> names;
  if (fs::is_directory(folder))
    for (const auto& entry : fs::directory_iterator(folder))
      if (entry.path().extension() == ".yaml" && read_config_tree(entry.path()).find("rows"))
        names.insert(entry.path().stem().string());
  std::string list;
  for (const std::string& name : names) list += text(list.empty() ? "" : ", ", name);
  return list.empty() ? "none" : list;
}

// The row that `row` begins with comes before it, and has a run for each of its own.
void check_origin(const TableRowConfig& row, std::span<const TableRowConfig> earlier) {
  if (row.from.empty()) return;
  const auto from = std::ranges::find(earlier, row.from, &TableRowConfig::name);
  check<ConfigError>(from != earlier.end(), "rows: ", row.name, " is from ", row.from,
                     ", which is not a row before it");
  check<ConfigError>(row.seeds <= from->seeds, "rows: ", row.name, " has ", row.seeds,
                     " seeds, but ", row.from, ", which it is from, ", from->seeds);
  check<ConfigError>(row.corpora == from->corpora, "rows: ", row.name,
                     " is for other corpora than ", row.from, ", which it is from");
}

// What a row may quote beside names of corpora.
std::vector<std::string> quotable(const TableConfig& table) {
  std::vector<std::string> names = {"memory", "compression"};
  if (table.kind == TableKind::kPasskey)
    for (const std::int64_t tokens : table.passkey.lengths) names.push_back(text(tokens));
  return names;
}

// The file that `infini prepare` wrote beside a corpus's splits.
fs::path tokenizer_of(const CorpusConfig& corpus) {
  const fs::path json = fs::path(corpus.store) / "tokenizer.json";
  return fs::exists(json) ? json : fs::path(corpus.store) / "tokenizer.model";
}

fs::path row_file(const Table& table, const TableRowConfig& row) {
  fs::path file = table.folder / row.config;
  check<ConfigError>(fs::is_regular_file(file), (table.folder / table.name).string(), ".yaml: row ",
                     row.name, " has config: ", row.config, ", but ", file.string(),
                     " does not exist");
  return file;
}

}  // namespace

std::string TableRowConfig::quoted_value(std::string_view of) const {
  const auto found = std::ranges::find(quoted, of, &QuotedConfig::of);
  return found == quoted.end() ? "" : found->value;
}

void TableConfig::validate() const {
  check<ConfigError>(!rows.empty(), "rows must name at least one system");
  check_names(rows, "rows");
  check_names(corpora, "corpora");
  check<ConfigError>(kind == TableKind::kMemory || !corpora.empty(),
                     "corpora must name at least one, but for kind memory");
  for (const CorpusConfig& corpus : corpora)
    check<ConfigError>(!corpus.store.empty(), "corpora: ", corpus.name, " has no store");
  for (const CorpusConfig& corpus : corpora)
    check<ConfigError>(kind != TableKind::kSummaries || !corpus.examples.empty(),
                       "corpora: ", corpus.name, " has no examples, of which kind summaries is");
  check<ConfigError>(
      !summaries.document_tokens.empty() && std::ranges::min(summaries.document_tokens) >= 0,
      "summaries.document_tokens must name tokens of documents, 0 for all");
  for (const TableSummariesConfig::Quoted& quoted : summaries.quoted)
    check<ConfigError>(quoted.values.size() == 4, "summaries.quoted: ", quoted.title, " has ",
                       quoted.values.size(), " values, expected 4: ROUGE-1, 2, L and their mean");
  check<ConfigError>(!passkey.lengths.empty() && std::ranges::min(passkey.lengths) >= 1,
                     "passkey.lengths must name tokens of prompts, each at least 1");
  check<ConfigError>(passkey.prompts >= 1, "passkey.prompts must be at least 1, got ",
                     passkey.prompts);
  const std::vector<std::string_view> known = names_of(corpora);
  const std::vector<std::string> others = quotable(*this);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const TableRowConfig& row = rows[i];
    check_origin(row, std::span(rows).first(i));
    check<ConfigError>(!row.config.empty(), "rows: ", row.name, " has no config");
    check<ConfigError>(row.seeds >= 1, "rows: seeds of ", row.name, " must be at least 1, got ",
                       row.seeds);
    for (const std::string& corpus : row.corpora)
      check<ConfigError>(contains(known, corpus), "rows: ", row.name, " is for corpus ", corpus,
                         "; ", name_hint(corpus, known));
    for (const QuotedConfig& quoted : row.quoted)
      check<ConfigError>(
          std::ranges::find(others, quoted.of) != others.end() || contains(known, quoted.of),
          "rows: ", row.name, " quotes ", quoted.of,
          "; expected memory, compression, the name of a corpus",
          kind == TableKind::kPasskey ? " or a length of prompts" : "");
  }
}

Table read_table(const fs::path& configs, const std::string& scale, const std::string& name) {
  const fs::path folder = configs / scale, file = folder / (name + ".yaml");
  check<ConfigError>(fs::is_regular_file(file), "there is no table ", name, " at scale ", scale,
                     ": ", file.string(), " does not exist; tables there: ", tables_in(folder));
  Table table{.name = name,
              .scale = scale,
              .folder = folder,
              .config = read_config_file<TableConfig>(file)};
  for (CorpusConfig& corpus : table.config.corpora)
    if (corpus.title.empty()) corpus.title = corpus.name;
  for (TableRowConfig& row : table.config.rows) {
    if (row.title.empty()) row.title = row.name;
    row.overrides.insert(row.overrides.begin(), table.config.overrides.begin(),
                         table.config.overrides.end());
  }
  return table;
}

RunConfig row_run(const Table& table, const TableRowConfig& row, const CorpusConfig& corpus,
                  std::int64_t seed, const fs::path& directory, const fs::path& from) {
  const fs::path file = row_file(table, row);
  RunConfig config = read_config_file<RunConfig>(file, row.overrides);
  if (config.data.source == DataKind::kStore) {
    config.data.store = corpus.store;
  } else if (config.data.source == DataKind::kExamples) {
    check<ConfigError>(!corpus.examples.empty(), file.string(), ": data.source is examples, but ",
                       corpus.name, " has none");
    config.data.store = corpus.examples;
  } else {
    check<ConfigError>(
        table.config.kind == TableKind::kPasskey && config.data.source == DataKind::kPasskey,
        file.string(), ": data.source must be store to be trained on a corpus");
    if (!row.from.empty()) config.data.passkey.tokenizer = tokenizer_of(corpus).string();
  }
  check<ConfigError>(
      table.config.kind != TableKind::kPerplexity || config.evaluate.document_tokens == 0,
      file.string(), ": evaluate.document_tokens is ", config.evaluate.document_tokens,
      ", but tables are of whole documents; expected 0");
  if (!row.from.empty()) config.init_from = from.string();
  config.seed = seed;
  config.directory = directory.string();
  return config;
}

ModelConfig row_model(const Table& table, const TableRowConfig& row) {
  return read_config_file<RunConfig>(row_file(table, row), row.overrides).model;
}

std::vector<TableRowConfig> with_origins(const Table& table,
                                         const std::vector<TableRowConfig>& rows) {
  std::set<std::string> names;
  for (const TableRowConfig& row : rows) names.insert(row.name);
  std::vector<TableRowConfig> all;
  for (const TableRowConfig& row : table.config.rows | std::views::reverse) {
    if (!names.contains(row.name)) continue;
    if (!row.from.empty()) names.insert(row.from);
    all.insert(all.begin(), row);
  }
  return all;
}

template <class Named>
std::vector<Named> select_named(const std::vector<Named>& all,
                                const std::vector<std::string>& names, const std::string& flag) {
  const std::vector<std::string_view> known = names_of(all);
  for (const std::string& name : names)
    check<ConfigError>(contains(known, name), flag, ": ", name, " is not in the table; ",
                       name_hint(name, known));
  std::vector<Named> selected;
  for (const Named& one : all)
    if (names.empty() || std::ranges::find(names, one.name) != names.end()) selected.push_back(one);
  return selected;
}
template std::vector<CorpusConfig> select_named(const std::vector<CorpusConfig>&,
                                                const std::vector<std::string>&,
                                                const std::string&);
template std::vector<TableRowConfig> select_named(const std::vector<TableRowConfig>&,
                                                  const std::vector<std::string>&,
                                                  const std::string&);

}  // namespace infini
