// Where the vCPUs of a translated domain that stands still are in their code.
#pragma once
#include <vector>

#include "host/xen/xen_memory.h"

namespace dormouse::xen {

struct StoppedVcpu {
  uint32_t id = 0;
  uint32_t flags = 0;  // the low half of RFLAGS
  uint8_t privilege = 0;
  // The two bytes before the instruction pointer, where they can be read.
  bool readable = false;
  uint8_t before[2] = {};
};

// Those that were ever brought up.
bool stopped_vcpus(const Handles& xen, uint32_t domid, XenMemory& memory,
                   std::vector<StoppedVcpu>* out, Fault* fault);

}  // namespace dormouse::xen
