// Boots a guest into an empty shell: populates it, writes kernel pages, page tables, p2m list and
// content, pins, and sets the vCPUs. What a domain builder does for a Xen PV guest.
#pragma once
#include "host/embedded/domain.h"

namespace dormouse::embedded {

struct GuestOptions {
  uint32_t program = kIdle;
  uint64_t pages = 0, seed = 0, steps = 0, rate = 0, working_set = 0, skew = 0, fill = 0;
  uint64_t crash_at = 0;
  bool deaf = false;
  uint32_t store_port = 0, console_port = 0;
};

// On a fault nothing of the domain is populated. The domain is left complete and paused.
bool boot_guest(Domain& domain, const GuestOptions& options, Fault* fault);

}  // namespace dormouse::embedded
