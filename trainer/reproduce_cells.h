// What is measured of a trained model piece by piece: each cell is kept as soon as it is there, so
// that a call may end between any two of them, and a table may ask for more of them later.
#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>

#include "distributed/communicator.h"
#include "trainer/loaded_model.h"
#include "trainer/reproduce_config.h"

namespace infini {

// Where results and timings list the cells of a table of this kind: "passkeys" or "summaries";
// empty for kinds that are measured at once.
std::string cells_key(TableKind kind);

// Whether a run's result has every cell that the table asks for; true for other kinds.
bool has_cells(const nlohmann::ordered_json& result, const TableConfig& table);

// Measures the cells that <directory>/<cells_key>.json lacks of this checkpoint, one after the
// other, and adds each to it. Between two cells it asks whether to `go_on`, and returns false where
// not. All ranks call it and divide each cell's work. `examples` is the folder of the documents
// with summaries, for kind summaries.
bool measure_cells(const LoadedModel& loaded, const TableConfig& table,
                   const std::filesystem::path& examples, const std::filesystem::path& directory,
                   const Communicator& all, const std::function<bool()>& go_on);

// Adds what measure_cells() found: to result[cells_key] each cell with its figures, to
// timings[cells_key] each cell with what it cost.
void add_cells(const std::filesystem::path& directory, const TableConfig& table,
               nlohmann::ordered_json& result, nlohmann::ordered_json& timings);

}  // namespace infini
