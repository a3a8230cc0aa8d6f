// A guest's pages as they come over a stream: some of them more than once, and several chunks of
// them placed at a time.
#pragma once
#include "host/host.h"

namespace dormouse::step {

// Of each pfn below `n` the type that came last, and whether a page of it is being placed.
struct KnownPages {
  uint8_t* types;
  uint8_t* placing;
  uint64_t n;
};

struct Admitted {
  uint64_t highest_pfn;
  // A page among them is being placed still.
  bool overlaps;
  uint32_t n_populate;
};

// Notes the pages of a chunk, which is one after all those noted before, marks those that have
// content as being placed, and lists the pfns that are to have a frame. Does nothing if a pfn is
// beyond those known, or if a page is being placed: which of the two bodies came last would be
// forgotten. One caller at a time; `populate` has room for them all.
Admitted admit_pages(const uint64_t* descs, uint32_t n_pages, const KnownPages& known,
                     uint64_t* populate);

// Pages as a chunk has them: `bodies` holds those whose class has one, in order.
struct PageBodies {
  const uint64_t* descs;
  uint32_t n_pages;
  const uint8_t* bodies;
  uint64_t n_bodies;
};

// Writes pages to frames they have, all-zero ones too, and tables in the canonical form they came
// in. INTERNAL if the bodies do not go with the descs. Safe from several threads on disjoint pages.
bool place_pages(host::DomainMemory& memory, const PageBodies& pages, Fault* fault);

// They are placed.
void unmark_pages(const uint64_t* descs, uint32_t n_pages, uint8_t* placing, uint64_t n);

}  // namespace dormouse::step
