// Run state, log-dirty and event channels of a domain.
#pragma once

#include "host/xen/handles.h"

namespace dormouse::xen {

// A suspended domain goes on in place; its suspend call returns 1, "cancelled".
bool resume_in_place(const Handles& xen, uint32_t domid, Fault* fault);

// LOCKED where it is on already, as libxl has it while it migrates the domain.
bool log_dirty_on(const Handles& xen, uint32_t domid, Fault* fault);
struct LogRead {
  bool clean = false;  // reset in the same step
  // The guest stands still: with the pages that Xen itself has mapped for writing.
  bool last = false;
};
// One bit a pfn for pfns [0, nr_pfns). LOCKED if pages were marked since the last reset that are
// not in it, or, of a read that resets, if another tool saves the domain: the log is left to it.
bool log_dirty_read(const Handles& xen, uint32_t domid, uint64_t nr_pfns, LogRead how,
                    std::vector<uint8_t>* bitmap, Fault* fault);
// Idempotent; `was_on` may be null. LOCKED, and nothing done, if another tool has taken it over.
bool log_dirty_off(const Handles& xen, uint32_t domid, bool* was_on, Fault* fault);

}  // namespace dormouse::xen
