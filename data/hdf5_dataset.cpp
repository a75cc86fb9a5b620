#include "data/hdf5_internal.h"

namespace infini {

using namespace hdf5;

std::vector<std::int64_t> Hdf5Dataset::dims() const {
  const Lock lock;
  const Hdf5Handle space(require<DataError>(H5Dget_space(handle_.id()), name_, "has no shape"));
  return dims_of(space.id());
}

std::int64_t Hdf5Dataset::elements() const { return product(dims()); }

template <class T>
Hdf5Array<T> Hdf5Dataset::read_all() const {
  Hdf5Array<T> array{.dims = dims(), .values = {}};
  array.values.resize(static_cast<std::size_t>(product(array.dims)));
  read_into(std::span<T>(array.values));
  return array;
}

template <class T>
void Hdf5Dataset::read_into(std::span<T> values) const {
  const Lock lock;
  check<DataError>(static_cast<std::int64_t>(values.size()) == elements(), name_, ": holds ",
                   elements(), " values, expected ", values.size());
  const Hdf5Handle type(require<DataError>(H5Dget_type(handle_.id()), name_, "has no type"));
  check<DataError>(is_numeric(type.id()), name_, ": expected numbers, found another type");
  if (values.empty()) return;
  require<DataError>(
      H5Dread(handle_.id(), native_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), name_,
      "cannot be read");
}

template <class T>
void Hdf5Dataset::write_all(std::span<const T> values) {
  const Lock lock;
  check(static_cast<std::int64_t>(values.size()) == elements(), name_, ": has room for ",
        elements(), " values, given ", values.size());
  if (values.empty()) return;
  require<DeviceError>(
      H5Dwrite(handle_.id(), native_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), name_,
      "cannot be written");
}

namespace {

struct Range {
  Hdf5Handle memory, file;
};

Range select(hid_t dataset, const std::string& name, std::int64_t begin, std::size_t count) {
  const hsize_t start = static_cast<hsize_t>(begin), length = count;
  Range range{Hdf5Handle(H5Screate_simple(1, &length, nullptr)), Hdf5Handle(H5Dget_space(dataset))};
  const auto dims = dims_of(range.file.id());
  check<DataError>(
      dims.size() == 1 && begin >= 0 && begin + static_cast<std::int64_t>(count) <= dims[0], name,
      ": range [", begin, ", ", begin + static_cast<std::int64_t>(count),
      ") asked, the dataset has rank ", dims.size(), " and ", product(dims), " values");
  H5Sselect_hyperslab(range.file.id(), H5S_SELECT_SET, &start, nullptr, &length, nullptr);
  return range;
}

}  // namespace

template <class T>
void Hdf5Dataset::read_range(std::int64_t begin, std::span<T> values) const {
  if (values.empty()) return;
  const Lock lock;
  const Range range = select(handle_.id(), name_, begin, values.size());
  require<DataError>(H5Dread(handle_.id(), native_type<T>(), range.memory.id(), range.file.id(),
                             H5P_DEFAULT, values.data()),
                     name_, "values from ", begin, " on cannot be read");
}

template <class T>
void Hdf5Dataset::write_range(std::int64_t begin, std::span<const T> values) {
  if (values.empty()) return;
  const Lock lock;
  const Range range = select(handle_.id(), name_, begin, values.size());
  require<DeviceError>(H5Dwrite(handle_.id(), native_type<T>(), range.memory.id(), range.file.id(),
                                H5P_DEFAULT, values.data()),
                       name_, "values from ", begin, " on cannot be written");
}

template <class T>
void Hdf5Dataset::append(std::span<const T> values) {
  const Lock lock;
  const std::int64_t begin = elements();
  const hsize_t size = static_cast<hsize_t>(begin) + values.size();
  require<DeviceError>(H5Dset_extent(handle_.id(), &size), name_, "cannot grow to ", size,
                       " values");
  write_range(begin, values);
}

#define INFINI_HDF5_TYPE(T)                                                    \
  template Hdf5Array<T> Hdf5Dataset::read_all<T>() const;                      \
  template void Hdf5Dataset::read_into<T>(std::span<T>) const;                 \
  template void Hdf5Dataset::write_all<T>(std::span<const T>);                 \
  template void Hdf5Dataset::read_range<T>(std::int64_t, std::span<T>) const;  \
  template void Hdf5Dataset::write_range<T>(std::int64_t, std::span<const T>); \
  template void Hdf5Dataset::append<T>(std::span<const T>);
INFINI_HDF5_TYPE(double)
INFINI_HDF5_TYPE(float)
INFINI_HDF5_TYPE(std::int32_t)
INFINI_HDF5_TYPE(std::int64_t)
INFINI_HDF5_TYPE(std::uint8_t)
INFINI_HDF5_TYPE(std::uint16_t)
INFINI_HDF5_TYPE(std::uint32_t)
INFINI_HDF5_TYPE(std::uint64_t)
#undef INFINI_HDF5_TYPE

}  // namespace infini
