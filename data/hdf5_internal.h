// What hdf5.cpp and hdf5_dataset.cpp share: the lock, HDF5's own words for a failure, types and
// shapes. Not for others.
#pragma once

#include <hdf5.h>

#include <algorithm>
#include <mutex>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "data/hdf5.h"
#include "tensor/error.h"

namespace infini::hdf5 {

static_assert(std::is_same_v<hid_t, std::int64_t>);

// Holds the process-wide lock and keeps HDF5 from printing.
class Lock {
 public:
  Lock() : guard_(mutex()) { H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr); }

 private:
  // Never destroyed, so that handles in static objects may still close. The library would close
  // what is open when the program ends: a file that could not be written, by a crash.
  static std::recursive_mutex& mutex() {
    static auto& instance = (H5dont_atexit(), *new std::recursive_mutex);
    return instance;
  }
  std::lock_guard<std::recursive_mutex> guard_;
};

// What HDF5 says happened, innermost cause first in its stack: " (cause)" or nothing.
inline std::string reason() {
  std::string cause;
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_UPWARD,
      [](unsigned, const H5E_error2_t* error, void* out) -> herr_t {
        auto& words = *static_cast<std::string*>(out);
        if (words.empty() && error->desc) words = text(" (", error->desc, ")");
        return 0;
      },
      &cause);
  H5Eclear2(H5E_DEFAULT);
  return cause;
}

// The identifier or status given, unless it is negative: then the failure of `who`.
template <class E, class Result, class... Parts>
Result require(Result result, const std::string& who, const Parts&... what) {
  if (result < 0) throw E(text(who, ": ", what..., reason()));
  return result;
}

template <class T>
hid_t native_type() {
  if constexpr (std::is_same_v<T, double>) return H5T_NATIVE_DOUBLE;
  if constexpr (std::is_same_v<T, float>) return H5T_NATIVE_FLOAT;
  if constexpr (std::is_same_v<T, std::int32_t>) return H5T_NATIVE_INT32;
  if constexpr (std::is_same_v<T, std::int64_t>) return H5T_NATIVE_INT64;
  if constexpr (std::is_same_v<T, std::uint8_t>) return H5T_NATIVE_UINT8;
  if constexpr (std::is_same_v<T, std::uint16_t>) return H5T_NATIVE_UINT16;
  if constexpr (std::is_same_v<T, std::uint32_t>) return H5T_NATIVE_UINT32;
  if constexpr (std::is_same_v<T, std::uint64_t>) return H5T_NATIVE_UINT64;
}

inline std::vector<std::int64_t> dims_of(hid_t space) {
  const int rank = H5Sget_simple_extent_ndims(space);
  std::vector<hsize_t> dims(std::max(rank, 0));
  H5Sget_simple_extent_dims(space, dims.data(), nullptr);
  return {dims.begin(), dims.end()};
}

inline std::int64_t product(std::span<const std::int64_t> dims) {
  std::int64_t elements = 1;
  for (const std::int64_t size : dims) elements *= size;
  return elements;
}

inline bool is_numeric(hid_t type) {
  const H5T_class_t kind = H5Tget_class(type);
  return kind == H5T_INTEGER || kind == H5T_FLOAT;
}

}  // namespace infini::hdf5
