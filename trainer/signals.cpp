#include "trainer/signals.h"

#include <csignal>

namespace infini {
namespace {

volatile std::sig_atomic_t received = 0;
struct sigaction before_term, before_int;

void remember(int signal) { received = signal; }

}  // namespace

StopSignals::StopSignals() {
  received = 0;
  struct sigaction action = {};
  action.sa_handler = remember;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGTERM, &action, &before_term);
  sigaction(SIGINT, &action, &before_int);
}

StopSignals::~StopSignals() {
  sigaction(SIGTERM, &before_term, nullptr);
  sigaction(SIGINT, &before_int, nullptr);
}

bool stop_requested() { return received != 0; }
int stop_signal() { return received; }

}  // namespace infini
