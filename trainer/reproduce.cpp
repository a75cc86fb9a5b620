// infini reproduce: a table of the paper from nothing but its configuration; trains what is
// missing, goes on with what was interrupted, measures, and writes it down.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>

#include "distributed/communicator.h"
#include "trainer/commands.h"
#include "trainer/exit_codes.h"
#include "trainer/on_ranks.h"
#include "trainer/option_checks.h"
#include "trainer/reproduce_report.h"
#include "trainer/reproduce_run.h"
#include "trainer/signals.h"

namespace infini {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

struct ReproduceOptions {
  std::string table, scale, configs = "configs", output;
  std::vector<std::string> rows, corpora;
  int seeds = 0;       // 0: as many as each row says
  double minutes = 0;  // 0: no limit
};

// A run and where in the table it belongs.
struct PlacedRun {
  std::string row, corpus, directory;  // the latter below the table's
  std::int64_t seed;
  TableRun run;
};

// `seeds(row)` of each row on each corpus that it is for, in `folder`.
std::vector<PlacedRun> runs_of(const Table& table, const std::vector<TableRowConfig>& rows,
                               const std::vector<CorpusConfig>& corpora,
                               const std::function<int(const TableRowConfig&)>& seeds,
                               const fs::path& folder) {
  std::vector<PlacedRun> runs;
  for (const TableRowConfig& row : rows)
    for (const CorpusConfig& corpus : corpora) {
      if (!row.corpora.empty() && std::ranges::find(row.corpora, corpus.name) == row.corpora.end())
        continue;
      for (int seed = 1; seed <= seeds(row); ++seed) {
        const auto directory = [&](const std::string& name) {
          return text(corpus.name, "/", name, "/seed-", seed);
        };
        const std::string own = directory(row.name);
        runs.push_back({.row = row.name,
                        .corpus = corpus.name,
                        .directory = own,
                        .seed = seed,
                        .run = TableRun(table.config, corpus,
                                        row_run(table, row, corpus, seed, folder / own,
                                                folder / directory(row.from)))});
      }
    }
  return runs;
}

// Work until a moment or a signal, at least one piece of it in each call so that calls come to an
// end.
class Deadline {
 public:
  Deadline(double minutes, const Communicator& all) : all_(all) {
    if (minutes > 0)
      stop_at_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                    std::chrono::duration<double>(60 * minutes));
  }
  std::optional<Clock::time_point> stop_at() const { return stop_at_; }
  // Whether the next piece may begin, the same on all ranks.
  bool allows_another() {
    const bool mine = !begun_ || (!stop_requested() && (!stop_at_ || Clock::now() < *stop_at_));
    begun_ = true;
    return all_.all_agree(mine);
  }

 private:
  const Communicator& all_;
  std::optional<Clock::time_point> stop_at_;
  bool begun_ = false;
};

// Whether every run is measured at the end; false when it was stopped before.
bool finish_runs(const World& world, const std::vector<PlacedRun>& runs, Deadline& deadline) {
  for (const PlacedRun& placed : runs) {
    const TableRun::State state = placed.run.state();
    if (state == TableRun::State::kMeasured) continue;
    if (!deadline.allows_another()) return false;
    if (state != TableRun::State::kTrained) {
      spdlog::info("{}: {}", placed.directory,
                   state == TableRun::State::kAbsent ? "training" : "going on");
      if (placed.run.train(world, deadline.stop_at()) != kExitDone) return false;
      if (!deadline.allows_another()) return false;
    }
    if (!placed.run.measure(world, [&] { return deadline.allows_another(); })) return false;
  }
  return true;
}

// Of the table's runs, those that are measured.
std::vector<CellResults> measured_cells(const std::vector<PlacedRun>& runs) {
  std::vector<CellResults> cells;
  for (const PlacedRun& placed : runs) {
    if (cells.empty() || cells.back().row != placed.row || cells.back().corpus != placed.corpus)
      cells.push_back({.row = placed.row, .corpus = placed.corpus, .runs = {}});
    if (placed.run.is_measured())
      cells.back().runs.push_back({.seed = placed.seed,
                                   .directory = placed.directory,
                                   .result = placed.run.result(),
                                   .timings = placed.run.timings()});
  }
  return cells;
}

int reproduce_on(const World& world, const ReproduceOptions& options) {
  const Table table = read_table(options.configs, options.scale, options.table);
  const std::vector<TableRowConfig> rows =
      with_origins(table, select_named(table.config.rows, options.rows, "--rows"));
  const std::vector<CorpusConfig> corpora =
      select_named(table.config.corpora, options.corpora, "--corpora");
  const auto place = [&](const std::string& name) {
    return options.output.empty() ? fs::path("runs/reproduce") / text(name, "-", options.scale)
                                  : fs::path(options.output);
  };
  const fs::path output = place(table.name), folder = place(table.runs_name());
  const Communicator all(world);
  if (table.config.kind == TableKind::kMemory) {
    check<ConfigError>(options.rows.empty() && options.corpora.empty() && options.seeds == 0,
                       "--rows, --corpora and --seeds choose runs; ", table.name, " has none");
    if (all.is_first()) write_report(table, {}, output);
    spdlog::info("{}", (output / "table.md").string());
    return kExitDone;
  }

  const std::vector<PlacedRun> chosen = runs_of(
      table, rows, corpora,
      [&](const TableRowConfig& row) { return options.seeds > 0 ? options.seeds : row.seeds; },
      folder);
  for (const PlacedRun& placed : chosen) placed.run.state();  // refuses before anything begins
  Deadline deadline(options.minutes, all);
  const bool finished = finish_runs(world, chosen, deadline);
  if (all.is_first()) {
    // What other calls measured is shown as well.
    const std::vector<PlacedRun> shown = runs_of(
        table, table.config.rows, table.config.corpora,
        [&](const TableRowConfig& row) { return std::max(options.seeds, row.seeds); }, folder);
    write_report(table, measured_cells(shown), output);
    spdlog::info(
        "{} of {} runs are measured; see {}",
        std::ranges::count_if(chosen, [](const PlacedRun& one) { return one.run.is_measured(); }),
        chosen.size(), (output / "table.md").string());
  }
  return finished ? kExitDone : kExitStopped;
}

}  // namespace

void add_reproduce(CLI::App& app, int& exit_code) {
  const auto options = std::make_shared<ReproduceOptions>();
  CLI::App* command = app.add_subcommand(
      "reproduce", "a table of the paper: trains what is missing, measures, writes it down");
  command
      ->add_option("table", options->table,
                   "a file of configs/<scale>: table1, table2, table3, figure3, longer, ...")
      ->required();
  command
      ->add_option("--scale", options->scale,
                   "cpu: minutes a row on one core; small: minutes a row on one GPU; paper: the "
                   "paper's own")
      ->required()
      ->check(CLI::IsMember({"cpu", "small", "paper"}));
  command
      ->add_option("--rows", options->rows,
                   "only these rows of the table and those they begin with: a,b")
      ->delimiter(',')
      ->allow_extra_args(false);
  command->add_option("--corpora", options->corpora, "only these corpora: x,y")
      ->delimiter(',')
      ->allow_extra_args(false);
  command
      ->add_option("--seeds", options->seeds,
                   "runs of each row on each corpus; without it, what the table says")
      ->check(at_least(1));
  command
      ->add_option("--minutes", options->minutes,
                   "save and stop after this many, with exit code 75; the next call goes on")
      ->check(above(0));
  command->add_option("--output", options->output,
                      "where runs and results go; default: runs/reproduce/<table>-<scale>");
  command
      ->add_option("--configs", options->configs, "folder of <scale>/<table>.yaml and their rows")
      ->capture_default_str();
  command->callback([options, &exit_code] {
    exit_code = on_ranks([&](const World& world) { return reproduce_on(world, *options); });
  });
}

}  // namespace infini
