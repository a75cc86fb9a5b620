#include "trainer/reproduce_config.h"

#include <algorithm>
#include <set>

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

fs::path row_file(const Table& table, const TableRowConfig& row) {
  fs::path file = table.folder / row.config;
  check<ConfigError>(fs::is_regular_file(file), (table.folder / table.name).string(), ".yaml: row ",
                     row.name, " has config: ", row.config, ", but ", file.string(),
                     " does not exist");
  return file;
}

}  // namespace

void TableConfig::validate() const {
  check<ConfigError>(!rows.empty(), "rows must name at least one system");
  check_names(rows, "rows");
  check_names(corpora, "corpora");
  check<ConfigError>(kind == TableKind::kMemory || !corpora.empty(),
                     "kind is perplexity, but corpora names none");
  for (const CorpusConfig& corpus : corpora)
    check<ConfigError>(!corpus.store.empty(), "corpora: ", corpus.name, " has no store");
  const std::vector<std::string_view> known = names_of(corpora);
  for (const TableRowConfig& row : rows) {
    check<ConfigError>(!row.config.empty(), "rows: ", row.name, " has no config");
    check<ConfigError>(row.seeds >= 1, "rows: seeds of ", row.name, " must be at least 1, got ",
                       row.seeds);
    for (const std::string& corpus : row.corpora)
      check<ConfigError>(contains(known, corpus), "rows: ", row.name, " is for corpus ", corpus,
                         "; ", name_hint(corpus, known));
    for (const QuotedConfig& quoted : row.quoted)
      check<ConfigError>(
          quoted.of == "memory" || quoted.of == "compression" || contains(known, quoted.of),
          "rows: ", row.name, " quotes ", quoted.of,
          "; expected memory, compression or the name of a corpus");
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
  for (TableRowConfig& row : table.config.rows)
    if (row.title.empty()) row.title = row.name;
  return table;
}

RunConfig row_run(const Table& table, const TableRowConfig& row, const CorpusConfig& corpus,
                  std::int64_t seed, const fs::path& directory) {
  const fs::path file = row_file(table, row);
  RunConfig config = read_config_file<RunConfig>(file, row.overrides);
  check<ConfigError>(config.data.source == DataKind::kStore, file.string(),
                     ": data.source must be store to be trained on a corpus");
  check<ConfigError>(config.evaluate.document_tokens == 0, file.string(),
                     ": evaluate.document_tokens is ", config.evaluate.document_tokens,
                     ", but tables are of whole documents; expected 0");
  config.data.store = corpus.store;
  config.seed = seed;
  config.directory = directory.string();
  return config;
}

ModelConfig row_model(const Table& table, const TableRowConfig& row) {
  return read_config_file<RunConfig>(row_file(table, row), row.overrides).model;
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
