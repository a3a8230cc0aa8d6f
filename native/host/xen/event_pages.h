// The pages of a guest in which Xen keeps its event channels (the FIFO kind): arrays of event words
// and control blocks. Xen writes to them past its dirty log and does not tell where they are, so
// they are known by their looks; a page that only looks like one does no harm.
#pragma once
#include <vector>

#include "host/host.h"

namespace dormouse::xen {

// An array has its last port free, as it has but where all 1,024 ports of it are in use.
bool looks_like_event_words(const uint32_t* words);
bool looks_like_control_block(const uint32_t* words);

// Pfns in ascending order, at most kEventPagesCap of them. Reads a little of every page.
constexpr size_t kEventPagesCap = 1024;
bool find_event_pages(host::DomainMemory& memory, std::vector<uint64_t>* pfns, Fault* fault);

}  // namespace dormouse::xen
