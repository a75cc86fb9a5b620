// HDF5 files behind owning handles: whole arrays, ranges of one-dimensional arrays, links,
// attributes.
//
// Every failure is an Error naming the file and the dataset: DataError when something is missing,
// damaged or of another shape, DeviceError when a write fails. HDF5's own printing is turned off.
// All calls, closing of handles included, take one process-wide lock, because the library is not
// thread-safe as Debian and Ubuntu build it: any thread may use any object here.
//
// T is one of double, float, std::int32_t, std::int64_t, std::uint8_t, std::uint16_t,
// std::uint32_t, std::uint64_t. Numbers on disk of another type are converted by HDF5. Raw bytes
// are std::uint8_t; bf16 is stored as std::uint16_t.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace infini {

// Closes an HDF5 identifier of any kind at the end of its life. Moves, does not copy.
class Hdf5Handle {
 public:
  Hdf5Handle() = default;
  explicit Hdf5Handle(std::int64_t id) : id_(id) {}
  Hdf5Handle(Hdf5Handle&& other) noexcept : id_(other.release()) {}
  Hdf5Handle& operator=(Hdf5Handle&& other) noexcept;
  ~Hdf5Handle() { reset(); }

  std::int64_t id() const { return id_; }
  std::int64_t release();
  bool reset();  // closes; false when HDF5 reports a failure, for example a full disk

 private:
  std::int64_t id_ = -1;
};

template <class T>
struct Hdf5Array {
  std::vector<std::int64_t> dims;  // empty: a scalar
  std::vector<T> values;           // row-major
};

// How a dataset lies on disk. A checksum or compression needs chunks; they are cut along the
// leading axes.
struct Hdf5Layout {
  std::int64_t chunk_elements = 1 << 16;
  bool checksum = true;     // Fletcher32 per chunk: a flipped bit fails the read
  int deflate = 0;          // 0 none, 1 fast .. 9 small
  bool shuffle = false;     // groups bytes of equal weight before deflate
  bool extendable = false;  // one-dimensional: append() may grow it
};

// One open dataset.
class Hdf5Dataset {
 public:
  const std::string& name() const { return name_; }  // "<file>: <path in file>", for messages
  std::vector<std::int64_t> dims() const;
  std::int64_t elements() const;

  template <class T>
  Hdf5Array<T> read_all() const;
  template <class T>
  void read_into(std::span<T> values) const;  // values.size() == elements()
  template <class T>
  void write_all(std::span<const T> values);

  // Elements [begin, begin + values.size()) of a one-dimensional dataset.
  template <class T>
  void read_range(std::int64_t begin, std::span<T> values) const;
  template <class T>
  void write_range(std::int64_t begin, std::span<const T> values);
  template <class T>
  void append(std::span<const T> values);

 private:
  friend class Hdf5File;
  Hdf5Handle handle_;
  std::string name_;
};

// One open file. Paths are "group/dataset"; "" or "/" is the root group. Closing a file closes what
// was opened in it.
class Hdf5File {
 public:
  static Hdf5File open(const std::filesystem::path& path);    // for reading
  static Hdf5File create(const std::filesystem::path& path);  // for writing; replaces what is there

  // A file in memory that nothing on disk belongs to; `name` stands in messages. image() is the
  // bytes it would have on disk, valid until the file is next used.
  static Hdf5File create_in_memory(const std::string& name);
  std::string_view image();

  // Flushes and closes; throws DeviceError if data could not reach the disk. The destructor does
  // not throw.
  void close();

  bool contains(const std::string& path) const;
  bool is_group(const std::string& path) const;
  std::vector<std::string> list(const std::string& group = "/") const;  // names of links, sorted
  std::vector<std::string> datasets() const;  // paths of all datasets of the file, sorted

  Hdf5Dataset dataset(const std::string& path) const;
  template <class T>
  Hdf5Dataset create_dataset(const std::string& path, std::span<const std::int64_t> dims,
                             const Hdf5Layout& layout = {});  // makes missing groups

  template <class T>
  Hdf5Array<T> read_all(const std::string& path) const {
    return dataset(path).read_all<T>();
  }
  template <class T>
  T read_scalar(const std::string& path) const;
  template <class T>
  void write(const std::string& path, std::span<const T> values, std::vector<std::int64_t> dims,
             const Hdf5Layout& layout = {}) {
    create_dataset<T>(path, dims, layout).write_all(values);
  }
  template <class T>
  void write(const std::string& path, const std::vector<T>& values, const Hdf5Layout& layout = {}) {
    write<T>(path, std::span<const T>(values), {static_cast<std::int64_t>(values.size())}, layout);
  }

  // One string per element, of fixed or variable length.
  std::vector<std::string> read_strings(const std::string& path) const;
  void write_strings(const std::string& path, const std::vector<std::string>& values);

  // Attributes of a group or dataset. Strings may be of fixed or variable length.
  bool has_attribute(const std::string& path, const std::string& name) const;
  std::string text_attribute(const std::string& path, const std::string& name) const;
  void set_attribute(const std::string& path, const std::string& name, const std::string& value);
  void set_attribute(const std::string& path, const std::string& name, const char* value) {
    set_attribute(path, name, std::string(value));
  }
  template <class T>
  T attribute(const std::string& path, const std::string& name) const;  // a scalar number
  template <class T>
  void set_attribute(const std::string& path, const std::string& name, T value);

 private:
  std::string describe(const std::string& path) const { return file_ + ": " + path; }
  Hdf5Handle open_object(const std::string& path) const;
  Hdf5Handle open_attribute(const std::string& path, const std::string& name) const;

  Hdf5Handle handle_;
  std::string file_;
};

}  // namespace infini
