// What one table of the paper is made of: configs/<scale>/<table>.yaml.
#pragma once

#include <filesystem>

#include "trainer/run_config.h"

namespace infini {

enum class TableKind { kMemory, kPerplexity, kPasskey, kSummaries };
constexpr std::array<std::pair<std::string_view, TableKind>, 4> enum_names(TableKind) {
  return {{{"memory", TableKind::kMemory},
           {"perplexity", TableKind::kPerplexity},
           {"passkey", TableKind::kPasskey},
           {"summaries", TableKind::kSummaries}}};
}

enum class FigureKind { kSegments, kGates, kPasskeys, kSummaries };
constexpr std::array<std::pair<std::string_view, FigureKind>, 4> enum_names(FigureKind) {
  return {{{"segments", FigureKind::kSegments},
           {"gates", FigureKind::kGates},
           {"passkeys", FigureKind::kPasskeys},
           {"summaries", FigureKind::kSummaries}}};
}

struct CorpusConfig {
  std::string name, title, store, examples;

  template <class Visitor>
  void visit(Visitor& field) {
    field("name", name, "of its folder, and for --corpora: letters, digits, - and _");
    field("title", title, "as tables and figures show it; empty: its name");
    field("store", store, "folder that `infini prepare` wrote: train.h5 and test.h5");
    field("examples", examples,
          "the same of documents with summaries, for rows that train on them and for kind "
          "summaries");
  }
};

struct QuotedConfig {
  std::string of, value;

  template <class Visitor>
  void visit(Visitor& field) {
    field("of", of,
          "memory, compression, the corpus whose token perplexity it is, or the length of prompts "
          "in tokens of which it is digits right in %: start/middle/end");
    field("value", value, "as the paper prints it");
  }
};

struct TableRowConfig {
  std::string name, title, config, from;
  std::vector<std::string> overrides, corpora;
  int seeds = 1;
  std::vector<QuotedConfig> quoted;

  template <class Visitor>
  void visit(Visitor& field) {
    field("name", name, "of its folder, and for --rows: letters, digits, - and _");
    field("title", title, "as tables and figures show it; empty: its name");
    field("config", config,
          "YAML file of the run, from the table's folder; seed, store and directory are the "
          "table's");
    field("overrides", overrides, "key=value on top of it");
    field("from", from, "an earlier row, with whose trained values this one begins");
    field("corpora", corpora, "those it is trained on; empty: all");
    field("seeds", seeds, "runs from seeds 1, 2, ... on each corpus");
    field("quoted", quoted, "what the paper prints for it");
  }
  // Empty where nothing is quoted of it.
  std::string quoted_value(std::string_view of) const;
};

// The prompts of a table of kind passkey: each length with keys at the start, in the middle and at
// the end, the memory as trained and forced off.
struct TablePasskeyConfig {
  std::vector<std::int64_t> lengths = {32768, 131072, 262144, 524288, 1048576};
  int prompts = 20;

  template <class Visitor>
  void visit(Visitor& field) {
    field("lengths", lengths, "of prompts in tokens, answer included");
    field("prompts", prompts, "for each length, position and setting of the memory");
  }
};

// The documents of a table of kind summaries: how far each is read, the memory as trained and
// forced off.
struct TableSummariesConfig {
  struct Quoted {
    std::string title;
    std::vector<std::string> values;

    template <class Visitor>
    void visit(Visitor& field) {
      field("title", title, "of a system of the paper");
      field("values", values, "ROUGE-1, 2, L and their geometric mean as the paper prints them");
    }
  };
  std::vector<std::int64_t> document_tokens = {16384, 65536, 0};
  std::vector<Quoted> quoted;

  template <class Visitor>
  void visit(Visitor& field) {
    field("document_tokens", document_tokens, "of a document that are read at most; 0: all of it");
    field("quoted", quoted, "the paper's rows");
  }
};

struct TableConfig {
  std::string title, runs_of;
  TableKind kind = TableKind::kPerplexity;
  std::vector<CorpusConfig> corpora;
  std::vector<std::string> overrides;
  std::vector<TableRowConfig> rows;
  TablePasskeyConfig passkey;
  TableSummariesConfig summaries;
  std::vector<FigureKind> figures;

  template <class Visitor>
  void visit(Visitor& field) {
    field("title", title, "first line of table.md");
    field("runs_of", runs_of, "table among whose runs are those of this one; empty: its own");
    field("kind", kind,
          "memory: sizes that follow from the configurations, nothing is trained; perplexity: of "
          "models that are trained and then read the test split; passkey: how often they then name "
          "a number hidden in a prompt; summaries: ROUGE of what they write of documents");
    field("corpora", corpora, "what the models are trained and tested on");
    field("overrides", overrides, "key=value on top of every row's file, below the row's own");
    field("rows", rows, "the systems that are compared");
    field("passkey", passkey, "the prompts of kind passkey");
    field("summaries", summaries, "the documents of kind summaries");
    field(
        "figures", figures,
        "segments: perplexity by index of the segment; gates: how much of each head comes from "
        "the memory; passkeys: exact matches by length and position; summaries: ROUGE by how much "
        "of a document is read");
  }
  void validate() const;
};

// A table that was read, and the folder in which it and its rows' files lie.
struct Table {
  std::string name, scale;
  std::filesystem::path folder;
  TableConfig config;

  std::string runs_name() const { return config.runs_of.empty() ? name : config.runs_of; }
};

// Reads <configs>/<scale>/<name>.yaml. Throws ConfigError, naming the tables there are, when there
// is none.
Table read_table(const std::filesystem::path& configs, const std::string& scale,
                 const std::string& name);

// A row's run on a corpus, as `infini train` would take it: the row's file and overrides with the
// store, the seed and the directory of the table. A row that begins with another has the other's
// directory, `from`, as init_from; its generated prompts are then in the corpus's tokens.
RunConfig row_run(const Table& table, const TableRowConfig& row, const CorpusConfig& corpus,
                  std::int64_t seed, const std::filesystem::path& directory,
                  const std::filesystem::path& from);
// The row's model alone.
ModelConfig row_model(const Table& table, const TableRowConfig& row);

// `rows` and those that they begin with, in the order of the table.
std::vector<TableRowConfig> with_origins(const Table& table,
                                         const std::vector<TableRowConfig>& rows);

// Those of `all` whose names were asked for, in the order of the table; all when none was. Throws
// ConfigError for a name that is not there, naming those that are. `flag` is how they were asked
// for.
template <class Named>
std::vector<Named> select_named(const std::vector<Named>& all,
                                const std::vector<std::string>& names, const std::string& flag);

}  // namespace infini
