// Pages of a domain that others write to without Xen's dirty log telling of it: Xen marks a granted
// page when it is unmapped, not when it is written, and backends keep theirs mapped for good.
#pragma once
#include <vector>

#include "host/xen/handles.h"

namespace dormouse::xen {

// Sets the bits, one a pfn, of what is mapped writable by other domains (grants, the rings of
// xenstored and xenconsoled) or written by Xen itself (shared info, grant table).
bool mark_shared_pages(const std::shared_ptr<Handles>& xen, uint32_t domid, uint8_t* bitmap,
                       uint64_t nr_pfns, Fault* fault);

}  // namespace dormouse::xen
