// Stopping on request: SIGTERM and SIGINT set a flag that the training loop asks after each step.
#pragma once

namespace infini {

// While one lives, SIGTERM and SIGINT no longer end the process. Further signals change nothing, so
// that an impatient scheduler or user cannot spoil the save. The destructor restores what was
// there.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
};

bool stop_requested();  // since the latest StopSignals was created
int stop_signal();      // which signal asked, 0 for none

}  // namespace infini
