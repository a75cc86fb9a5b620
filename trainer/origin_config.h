// Where a model came from, when it was imported: what an export needs to give it back as it came.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tensor/enum_names.h"
#include "trainer/stored_type.h"

namespace infini {

struct OriginConfig {
  StoredType dtype = StoredType::kFp32;
  std::vector<std::string> other_dtypes = {};
  std::string config = {};

  template <class Visitor>
  void visit(Visitor& field) {
    field("dtype", dtype, "type of its weights on disk, in which an export writes them");
    field("other_dtypes", other_dtypes, "tensors of another type than most, as name=type");
    field("config", config,
          "config.json of the model that was imported; empty: it was trained here");
  }

  StoredType dtype_of(std::string_view tensor) const {
    for (const std::string& entry : other_dtypes)
      if (const std::size_t at = entry.rfind('='); std::string_view(entry).substr(0, at) == tensor)
        if (const auto type = value_of<StoredType>(std::string_view(entry).substr(at + 1)))
          return *type;
    return dtype;
  }
};

}  // namespace infini
