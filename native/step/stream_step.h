// Pages of a domain as PAGE_DATA records of the libxc migration stream, and page tables of such a
// stream on their way in.
#pragma once
#include "host/host.h"

namespace dormouse::step {

// Writes pfns [first, first + count) to fd as records of up to kBatchPages pfns, each whole even
// where several threads write: their order means nothing to a reader. *bytes grows by what was
// written. PAGE_TABLE_INVALID, NO_SPACE, IMAGE_WRITE_FAILED.
bool stream_step(host::DomainMemory& memory, int fd, uint64_t first, uint64_t count,
                 uint64_t* bytes, Fault* fault);

// Localises the tables that lie in canonical form in the memory of a domain being built.
bool localise_tables(host::DomainMemory& memory, const uint64_t* pfns, const uint8_t* levels,
                     uint64_t n, Fault* fault);

}  // namespace dormouse::step
