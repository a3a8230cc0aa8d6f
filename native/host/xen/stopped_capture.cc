#include "host/xen/stopped_capture.h"

#include <algorithm>
#include <chrono>

#include "guard.h"

namespace dormouse::xen {
namespace {

// Adds what has passed since the last lap to the part that is named.
class Laps {
 public:
  void done(uint64_t* part) {
    const auto now = std::chrono::steady_clock::now();
    *part += uint64_t(std::chrono::nanoseconds(now - last_).count());
    last_ = now;
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

bool capture_standing(Stoppable& domain, host::StoppedWork& work, Laps* laps, StopTimes* times,
                      Fault* fault) {
  const uint64_t nr_pfns = work.logged_pfns();
  const bool logged = nr_pfns != 0;
  std::vector<uint8_t> log;
  if (logged && !domain.read_log(nr_pfns, &log, fault)) return false;
  laps->done(&times->find_ns);
  if (!domain.read_registers(fault)) return false;
  laps->done(&times->state_ns);
  bool done = false;
  if (!domain.catch_up(logged, fault) || !work.run(logged ? log.data() : nullptr, &done, fault))
    return false;
  laps->done(&times->find_ns);
  times->copy_ns = std::min(work.copying_ns(), times->find_ns);
  times->find_ns -= times->copy_ns;
  if (done && !domain.captured(fault)) return false;
  laps->done(&times->state_ns);
  return true;
}

}  // namespace

bool capture_stopped(Stoppable& domain, host::StoppedWork& work, StopTimes* times, Fault* fault) {
  if (!domain.prepare(work.logged_pfns() != 0, fault)) return false;
  Laps laps;
  if (!domain.stop(fault)) return false;
  laps.done(&times->stop_ns);
  const bool good =
      guarded(fault, [&] { return capture_standing(domain, work, &laps, times, fault); });
  Fault stuck;
  if (!domain.go_on(&stuck)) {
    // The first fault is the one to tell.
    if (good) *fault = stuck;
    return false;
  }
  laps.done(&times->resume_ns);
  return good;
}

}  // namespace dormouse::xen
