// The one instruction after `sti` or `mov ss`, during which a processor takes no interrupt. Xen's
// state of a vCPU has no field for it: a vCPU brought back there could take its wake-up between
// `sti` and `hlt`, and sleep through it.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "fault.h"

namespace dormouse::xen {

// Where a vCPU that stands still is in its code.
struct StoppedVcpu {
  uint32_t id = 0;
  uint32_t flags = 0;     // the low half of RFLAGS
  uint8_t privilege = 0;  // 0 for a kernel, 3 for a process
  // The two bytes before the instruction pointer, where they can be read and it runs in 64-bit
  // mode.
  bool readable = false;
  uint8_t before[2] = {};
};

// What precedes is not decoded: the end of a longer instruction can look like one of the two.
bool may_be_in_shadow(const StoppedVcpu& vcpu);

struct Pauses {
  std::function<bool(Fault*)> pause, unpause;
  std::function<bool(std::vector<StoppedVcpu>*, Fault*)> vcpus;
  // Whether it is at rest otherwise; may be none.
  std::function<bool(bool*, Fault*)> rests;
};

// Pauses, and lets it run on for a moment as long as a vCPU stands in the shadow or it is not at
// rest; `in_shadow` are those that still do after the last try. After a fault it is not paused, but
// for one of unpausing.
bool pause_outside_shadow(const Pauses& pauses, std::vector<uint32_t>* in_shadow, Fault* fault);

}  // namespace dormouse::xen
