// A domain is stopped, what changed is captured, and it goes on: a pause with nothing in it that
// could be done before or after.
#pragma once
#include <cstdint>
#include <vector>

#include "host/stopped_work.h"

namespace dormouse::xen {

// The calls of a pause, in the order in which they are made.
class Stoppable {
 public:
  virtual ~Stoppable() = default;
  // While the domain still runs: what is known then, and maps what the pause reads.
  virtual bool prepare(bool logged, Fault* fault) = 0;
  // After a fault it is not stopped, if that could be taken back; throws nothing.
  virtual bool stop(Fault* fault) = 0;
  // What changed of pfns [0, nr_pfns), one bit a pfn, in the log or past it.
  virtual bool read_log(uint64_t nr_pfns, std::vector<uint8_t>* log, Fault* fault) = 0;
  virtual bool read_registers(Fault* fault) = 0;
  // Brings the memory up to date.
  virtual bool catch_up(bool logged, Fault* fault) = 0;
  // All is captured.
  virtual bool captured(Fault* fault) = 0;
  virtual bool go_on(Fault* fault) = 0;
};

struct StopTimes {
  uint64_t stop_ns = 0, find_ns = 0, copy_ns = 0, state_ns = 0, resume_ns = 0;
};

// Does `work` on the domain while it stands; captured() is not called where that was too much for a
// pause. The domain goes on, also after a fault: but for one of go_on().
bool capture_stopped(Stoppable& domain, host::StoppedWork& work, StopTimes* times, Fault* fault);

}  // namespace dormouse::xen
