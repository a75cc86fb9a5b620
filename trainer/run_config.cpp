#include "trainer/run_config.h"

#include "tensor/system_memory.h"

namespace infini {

Device device_of(DeviceChoice choice) {
  if (choice == DeviceChoice::kCpu) return Device::kCpu;
  const bool found = is_available(Device::kCuda);
  check<DeviceError>(found || choice == DeviceChoice::kAuto,
                     "device is cuda, but there is no GPU that this build can use here; "
                     "device=cpu or device=auto runs without one");
  return found ? Device::kCuda : Device::kCpu;
}

}  // namespace infini
