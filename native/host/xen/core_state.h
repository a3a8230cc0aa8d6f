// What a core dump holds of a domain beside its memory (docs/misc/dump-core-format.txt of Xen).
#pragma once
#include "host/xen/domain_state.h"

namespace dormouse::xen {

struct CoreBlobs {
  std::vector<Bytes> contexts;  // of the vCPUs that were ever set up, by id
  Bytes shared_info;            // empty where it cannot be mapped
  Bytes hypervisor;             // the note about the hypervisor's version
};

// Of a domain that stands still; MFNs as Xen has them.
bool read_core_state(const std::shared_ptr<Handles>& xen, uint32_t domid, CoreBlobs* state,
                     Fault* fault);

}  // namespace dormouse::xen
