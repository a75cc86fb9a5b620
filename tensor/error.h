// How the program refuses: one exception family, one function that throws it.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace infini {

// A call that cannot be carried out. What to do about it is in the message: who, what came, what
// was expected.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class ConfigError : public Error {  // the user's configuration or command line; exit code 2
 public:
  using Error::Error;
};

class DataError
    : public Error {  // a file that is damaged or is not what it claims to be; exit code 3
 public:
  using Error::Error;
};

class DeviceError : public Error {  // memory, accelerator, disk or network; exit code 4
 public:
  using Error::Error;
};

class OutOfMemory : public DeviceError {
 public:
  using DeviceError::DeviceError;
};

// All parts written one after the other.
template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

// Throws E with the parts as its message unless the condition holds.
template <class E = Error, class... Parts>
void check(bool condition, const Parts&... parts) {
  if (!condition) [[unlikely]]
    throw E(text(parts...));
}

}  // namespace infini
