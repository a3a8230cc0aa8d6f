// Cuts a domain's pfns into pieces of work for threads, by how much there is to do in them: holes
// are cheap, and what is not pending costs nothing.
#pragma once
#include <cstdint>
#include <vector>

#include "host/host.h"
#include "step/pending_set.h"

namespace dormouse::step {

struct Piece {
  uint64_t first, count;  // first is a multiple of 64
};

// Pieces of some `pages` pages each, in order. With `pending` they cover every pfn of that set and
// need not cover others; without, all of [0, nr_pfns).
std::vector<Piece> cut_pieces(const host::DomainMemory& memory, uint64_t nr_pfns, uint64_t pages,
                              const PendingSet* pending);

}  // namespace dormouse::step
