// Where the vCPUs of a translated domain that stands still are in their code.
#pragma once
#include <vector>

#include "host/xen/interrupt_shadow.h"
#include "host/xen/xen_memory.h"

namespace dormouse::xen {

// Those that were ever brought up.
bool stopped_vcpus(const Handles& xen, uint32_t domid, XenMemory& memory,
                   std::vector<StoppedVcpu>* out, Fault* fault);

}  // namespace dormouse::xen
