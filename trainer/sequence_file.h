// Where a sequence stands, in a file: a sealed HDF5 file, see data/seal.h, of one size however long
// the text is, but for 4 bytes for each token written since the text was last given some.
#pragma once

#include <filesystem>
#include <string>

#include "trainer/sequence.h"

namespace infini {

// `identity` tells models apart: LoadedModel::identity. Replaces the file in one step. Throws
// DeviceError where it cannot be written, with what was there untouched.
void save_sequence(const std::filesystem::path& path, const Sequence& sequence,
                   const std::string& identity);

// Goes on as the sequence that was saved would have: to the last bit on the same device. Throws
// DataError where the file is damaged or of another version, ConfigError where it belongs to
// another model.
Sequence load_sequence(const std::filesystem::path& path, const InfiniTransformer& model,
                       const std::string& identity);

}  // namespace infini
