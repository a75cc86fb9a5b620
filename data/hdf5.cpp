#include <utility>

#include "data/hdf5_internal.h"

namespace infini {

using namespace hdf5;

namespace {

Hdf5Handle string_type() {
  Hdf5Handle type(H5Tcopy(H5T_C_S1));
  H5Tset_size(type.id(), H5T_VARIABLE);
  H5Tset_cset(type.id(), H5T_CSET_UTF8);
  return type;
}

// Creation properties for `layout`, or the contiguous default for scalars and empty arrays.
Hdf5Handle creation_properties(std::span<const std::int64_t> dims, const Hdf5Layout& layout) {
  Hdf5Handle properties(H5Pcreate(H5P_DATASET_CREATE));
  H5Pset_obj_track_times(properties.id(), false);  // the same content is the same bytes
  const bool chunked = layout.checksum || layout.deflate > 0 || layout.shuffle || layout.extendable;
  if (!chunked || dims.empty() || (!layout.extendable && product(dims) == 0)) return properties;

  std::vector<hsize_t> chunk(dims.begin(), dims.end());
  if (layout.extendable) chunk[0] = layout.chunk_elements;
  std::int64_t budget = layout.chunk_elements;
  for (std::size_t axis = chunk.size(); axis-- > 0;) {  // innermost axes whole, outer ones cut
    chunk[axis] = std::clamp<hsize_t>(chunk[axis], 1, std::max<std::int64_t>(budget, 1));
    budget /= static_cast<std::int64_t>(chunk[axis]);
  }
  H5Pset_chunk(properties.id(), static_cast<int>(chunk.size()), chunk.data());
  if (layout.shuffle) H5Pset_shuffle(properties.id());
  if (layout.deflate > 0) H5Pset_deflate(properties.id(), static_cast<unsigned>(layout.deflate));
  if (layout.checksum) H5Pset_fletcher32(properties.id());
  return properties;
}

// Reads every string behind `read`, which is H5Dread or H5Aread bound to its object.
template <class Read>
std::vector<std::string> strings_behind(hid_t type, hid_t space, const std::string& who,
                                        Read read) {
  check<DataError>(H5Tget_class(type) == H5T_STRING, who, ": expected text, found another type");
  const std::size_t count = static_cast<std::size_t>(H5Sget_simple_extent_npoints(space));
  std::vector<std::string> values(count);
  if (count == 0) return values;
  if (H5Tis_variable_str(type) > 0) {
    const Hdf5Handle memory(H5Tcopy(type));
    std::vector<char*> pointers(count, nullptr);
    require<DataError>(read(memory.id(), static_cast<void*>(pointers.data())), who,
                       "cannot be read");
    for (std::size_t i = 0; i < count; ++i)
      if (pointers[i]) values[i] = pointers[i];
    H5Dvlen_reclaim(memory.id(), space, H5P_DEFAULT, pointers.data());
  } else {
    const std::size_t width = H5Tget_size(type);
    std::string bytes(count * width, '\0');
    require<DataError>(read(type, static_cast<void*>(bytes.data())), who, "cannot be read");
    for (std::size_t i = 0; i < count; ++i) values[i] = bytes.substr(i * width, width).c_str();
  }
  return values;
}

}  // namespace

Hdf5Handle& Hdf5Handle::operator=(Hdf5Handle&& other) noexcept {
  if (this != &other) {
    reset();
    id_ = other.release();
  }
  return *this;
}

std::int64_t Hdf5Handle::release() { return std::exchange(id_, -1); }

bool Hdf5Handle::reset() {
  const hid_t id = release();
  if (id < 0) return true;
  const Lock lock;
  switch (H5Iget_type(id)) {
    case H5I_FILE:
      return H5Fclose(id) >= 0;
    case H5I_GROUP:
      return H5Gclose(id) >= 0;
    case H5I_DATASET:
      return H5Dclose(id) >= 0;
    case H5I_DATASPACE:
      return H5Sclose(id) >= 0;
    case H5I_DATATYPE:
      return H5Tclose(id) >= 0;
    case H5I_ATTR:
      return H5Aclose(id) >= 0;
    case H5I_GENPROP_LST:
      return H5Pclose(id) >= 0;
    default:
      return true;  // already closed together with its file
  }
}

Hdf5File Hdf5File::open(const std::filesystem::path& path) {
  const Lock lock;
  check<DataError>(std::filesystem::exists(path), path.string(), ": no such file");
  Hdf5File file;
  file.file_ = path.string();
  const Hdf5Handle access(H5Pcreate(H5P_FILE_ACCESS));
  H5Pset_fclose_degree(access.id(), H5F_CLOSE_STRONG);
  file.handle_ = Hdf5Handle(require<DataError>(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.id()),
                                               file.file_, "cannot be opened as HDF5"));
  return file;
}

Hdf5File Hdf5File::create(const std::filesystem::path& path) {
  const Lock lock;
  Hdf5File file;
  file.file_ = path.string();
  const Hdf5Handle access(H5Pcreate(H5P_FILE_ACCESS));
  H5Pset_fclose_degree(access.id(), H5F_CLOSE_STRONG);
  file.handle_ = Hdf5Handle(
      require<DeviceError>(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.id()),
                           file.file_, "cannot be created"));
  return file;
}

Hdf5File Hdf5File::create_in_memory(const std::string& name) {
  const Lock lock;
  Hdf5File file;
  file.file_ = name;
  const Hdf5Handle access(H5Pcreate(H5P_FILE_ACCESS));
  H5Pset_fclose_degree(access.id(), H5F_CLOSE_STRONG);
  H5Pset_fapl_core(access.id(), std::size_t{16} << 20, /*backing_store=*/false);
  file.handle_ = Hdf5Handle(
      require<DeviceError>(H5Fcreate(name.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.id()),
                           file.file_, "cannot be created in memory"));
  return file;
}

std::string_view Hdf5File::image() {
  const Lock lock;
  require<DeviceError>(H5Fflush(handle_.id(), H5F_SCOPE_GLOBAL), file_, "cannot be completed");
  void* handle = nullptr;  // of the core driver: the address of the pointer to its memory
  require<DeviceError>(H5Fget_vfd_handle(handle_.id(), H5P_DEFAULT, &handle), file_,
                       "is not in memory");
  // Not H5Fget_filesize, which counts what the driver has allocated ahead.
  const auto bytes =
      require<DeviceError>(H5Fget_file_image(handle_.id(), nullptr, 0), file_, "has no size");
  return {*static_cast<const char* const*>(handle), static_cast<std::size_t>(bytes)};
}

void Hdf5File::close() {
  const Lock lock;
  if (handle_.id() < 0) return;
  // A failed flush is noticed here, while the file is still open, and not at some later close.
  require<DeviceError>(H5Fflush(handle_.id(), H5F_SCOPE_GLOBAL), file_, "cannot be written out");
  check<DeviceError>(handle_.reset(), file_, ": cannot be closed", reason());
}

bool Hdf5File::contains(const std::string& path) const {
  const Lock lock;
  if (path.empty() || path == "/") return true;
  for (std::size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string prefix = path.substr(0, end);
    if (H5Lexists(handle_.id(), prefix.c_str(), H5P_DEFAULT) <= 0) return false;
    if (end == std::string::npos) return true;
  }
}

Hdf5Handle Hdf5File::open_object(const std::string& path) const {
  check<DataError>(contains(path), describe(path), ": is not in the file");
  const std::string name = path.empty() ? "/" : path;
  return Hdf5Handle(require<DataError>(H5Oopen(handle_.id(), name.c_str(), H5P_DEFAULT),
                                       describe(path), "cannot be opened"));
}

bool Hdf5File::is_group(const std::string& path) const {
  const Lock lock;
  return contains(path) && H5Iget_type(open_object(path).id()) == H5I_GROUP;
}

std::vector<std::string> Hdf5File::list(const std::string& group) const {
  const Lock lock;
  const Hdf5Handle object = open_object(group);
  check<DataError>(H5Iget_type(object.id()) == H5I_GROUP, describe(group), ": is not a group");
  std::vector<std::string> names;
  require<DataError>(H5Literate(
                         object.id(), H5_INDEX_NAME, H5_ITER_INC, nullptr,
                         [](hid_t, const char* name, const H5L_info_t*, void* out) -> herr_t {
                           static_cast<std::vector<std::string>*>(out)->push_back(name);
                           return 0;
                         },
                         &names),
                     describe(group), "cannot be listed");
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> Hdf5File::datasets() const {
  const Lock lock;
  std::vector<std::string> paths, groups = {""};
  while (!groups.empty()) {
    const std::string group = groups.back();
    groups.pop_back();
    for (const std::string& name : list(group)) {
      const std::string path = group.empty() ? name : group + "/" + name;
      (is_group(path) ? groups : paths).push_back(path);
    }
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

Hdf5Dataset Hdf5File::dataset(const std::string& path) const {
  const Lock lock;
  Hdf5Dataset dataset;
  dataset.name_ = describe(path);
  dataset.handle_ = open_object(path);
  check<DataError>(H5Iget_type(dataset.handle_.id()) == H5I_DATASET, dataset.name_,
                   ": is not a dataset");
  return dataset;
}

namespace {

Hdf5Handle create_raw(hid_t file, const std::string& who, const std::string& path, hid_t type,
                      std::span<const std::int64_t> dims, const Hdf5Layout& layout) {
  const std::vector<hsize_t> sizes(dims.begin(), dims.end());
  std::vector<hsize_t> limits = sizes;
  if (layout.extendable) {
    check(dims.size() == 1, who, ": only a one-dimensional dataset can grow, got rank ",
          dims.size());
    limits[0] = H5S_UNLIMITED;
  }
  const Hdf5Handle space(
      dims.empty() ? H5Screate(H5S_SCALAR)
                   : H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), limits.data()));
  const Hdf5Handle properties = creation_properties(dims, layout);
  const Hdf5Handle links(H5Pcreate(H5P_LINK_CREATE));
  H5Pset_create_intermediate_group(links.id(), 1);
  return Hdf5Handle(require<DeviceError>(
      H5Dcreate2(file, path.c_str(), type, space.id(), links.id(), properties.id(), H5P_DEFAULT),
      who, "cannot be created"));
}

}  // namespace

template <class T>
Hdf5Dataset Hdf5File::create_dataset(const std::string& path, std::span<const std::int64_t> dims,
                                     const Hdf5Layout& layout) {
  const Lock lock;
  Hdf5Dataset dataset;
  dataset.name_ = describe(path);
  dataset.handle_ = create_raw(handle_.id(), dataset.name_, path, native_type<T>(), dims, layout);
  return dataset;
}

template <class T>
T Hdf5File::read_scalar(const std::string& path) const {
  T value{};
  dataset(path).read_into(std::span<T>(&value, 1));
  return value;
}

std::vector<std::string> Hdf5File::read_strings(const std::string& path) const {
  const Lock lock;
  const Hdf5Dataset source = dataset(path);
  const hid_t id = source.handle_.id();
  const Hdf5Handle type(H5Dget_type(id)), space(H5Dget_space(id));
  return strings_behind(type.id(), space.id(), source.name(), [&](hid_t memory, void* out) {
    return H5Dread(id, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, out);
  });
}

void Hdf5File::write_strings(const std::string& path, const std::vector<std::string>& values) {
  const Lock lock;
  const Hdf5Handle type = string_type();
  const std::int64_t count = static_cast<std::int64_t>(values.size());
  const Hdf5Handle target = create_raw(handle_.id(), describe(path), path, type.id(),
                                       std::span(&count, 1), {.checksum = false});
  if (values.empty()) return;
  std::vector<const char*> pointers;
  for (const std::string& value : values) pointers.push_back(value.c_str());
  require<DeviceError>(
      H5Dwrite(target.id(), type.id(), H5S_ALL, H5S_ALL, H5P_DEFAULT, pointers.data()),
      describe(path), "cannot be written");
}

bool Hdf5File::has_attribute(const std::string& path, const std::string& name) const {
  const Lock lock;
  return H5Aexists(open_object(path).id(), name.c_str()) > 0;
}

Hdf5Handle Hdf5File::open_attribute(const std::string& path, const std::string& name) const {
  const Hdf5Handle object = open_object(path);
  check<DataError>(H5Aexists(object.id(), name.c_str()) > 0, describe(path), ": has no attribute ",
                   name);
  return Hdf5Handle(require<DataError>(H5Aopen(object.id(), name.c_str(), H5P_DEFAULT),
                                       describe(path), "attribute ", name, " cannot be opened"));
}

std::string Hdf5File::text_attribute(const std::string& path, const std::string& name) const {
  const Lock lock;
  const Hdf5Handle attribute = open_attribute(path, name);
  const Hdf5Handle type(H5Aget_type(attribute.id())), space(H5Aget_space(attribute.id()));
  const std::string who = describe(path) + ", attribute " + name;
  const auto values = strings_behind(type.id(), space.id(), who, [&](hid_t memory, void* out) {
    return H5Aread(attribute.id(), memory, out);
  });
  check<DataError>(values.size() == 1, who, ": expected one text, found ", values.size());
  return values[0];
}

void Hdf5File::set_attribute(const std::string& path, const std::string& name,
                             const std::string& value) {
  const Lock lock;
  const Hdf5Handle object = open_object(path), type = string_type(), space(H5Screate(H5S_SCALAR));
  const Hdf5Handle attribute(require<DeviceError>(
      H5Acreate2(object.id(), name.c_str(), type.id(), space.id(), H5P_DEFAULT, H5P_DEFAULT),
      describe(path), "attribute ", name, " cannot be created"));
  const char* const pointer = value.c_str();
  require<DeviceError>(H5Awrite(attribute.id(), type.id(), &pointer), describe(path), "attribute ",
                       name, " cannot be written");
}

template <class T>
T Hdf5File::attribute(const std::string& path, const std::string& name) const {
  const Lock lock;
  const Hdf5Handle source = open_attribute(path, name);
  const Hdf5Handle type(H5Aget_type(source.id())), space(H5Aget_space(source.id()));
  check<DataError>(is_numeric(type.id()) && H5Sget_simple_extent_npoints(space.id()) == 1,
                   describe(path), ": attribute ", name, " is not a single number");
  T value{};
  require<DataError>(H5Aread(source.id(), native_type<T>(), &value), describe(path), "attribute ",
                     name, " cannot be read");
  return value;
}

template <class T>
void Hdf5File::set_attribute(const std::string& path, const std::string& name, T value) {
  const Lock lock;
  const Hdf5Handle object = open_object(path), space(H5Screate(H5S_SCALAR));
  const Hdf5Handle target(require<DeviceError>(
      H5Acreate2(object.id(), name.c_str(), native_type<T>(), space.id(), H5P_DEFAULT, H5P_DEFAULT),
      describe(path), "attribute ", name, " cannot be created"));
  require<DeviceError>(H5Awrite(target.id(), native_type<T>(), &value), describe(path),
                       "attribute ", name, " cannot be written");
}

#define INFINI_HDF5_TYPE(T)                                                        \
  template Hdf5Dataset Hdf5File::create_dataset<T>(                                \
      const std::string&, std::span<const std::int64_t>, const Hdf5Layout&);       \
  template T Hdf5File::read_scalar<T>(const std::string&) const;                   \
  template T Hdf5File::attribute<T>(const std::string&, const std::string&) const; \
  template void Hdf5File::set_attribute<T>(const std::string&, const std::string&, T);
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
