// MPI's errors in words.
#pragma once

#include <mpi.h>

#include "tensor/error.h"

namespace infini {

inline void check_mpi(int status, const char* call) {
  if (status == MPI_SUCCESS) return;
  char reason[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(status, reason, &length);
  throw DeviceError(text(call, " failed: ", reason));
}

}  // namespace infini
