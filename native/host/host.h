// The memory half of the host contract: what a save, restore or digest step needs of a domain's
// pages. src/host/contract.ts is the other half. Both hosts implement it; no step asks which it
// has.
//
// Invariants: a page is copied once and only the copy is parsed (the guest may write meanwhile);
// an entry is `mfn | page type << 60`, types being Xen's PFINFO nibbles; a pfn without a frame has
// type kXtab and an mfn of all ones.
#pragma once
#include <cstdint>

#include "fault.h"
#include "pfn/page_words.h"

namespace dormouse::host {

// The words of host and page tables alike.
using pfn::FrameMaps;
using pfn::has_body;
using pfn::kBroken;
using pfn::kMfnMask;
using pfn::kNoMfn;
using pfn::kNotab;
using pfn::kPageSize;
using pfn::kPinned;
using pfn::kXalloc;
using pfn::kXtab;
using pfn::mfn_of;
using pfn::table_level;
using pfn::type_of;

// A domain's memory, live or as of a snapshot. All functions may be called from several threads at
// once on disjoint pfns. `n` is at most 1024 for each call (Xen's own limit for a type batch).
class DomainMemory {
 public:
  virtual ~DomainMemory() = default;

  virtual FrameMaps maps() const = 0;
  // Size of the pfn space: what query() may be asked for.
  virtual uint64_t nr_pfns() const = 0;

  // Type and frame of pfns [first, first + n).
  virtual bool query(uint64_t first, uint32_t n, uint64_t* entries, Fault* fault) = 0;

  // The first pfn from `pfn` on that may have a frame. What lies before it has none and need not be
  // queried, as long as knows_holes() holds.
  virtual uint64_t next_present(uint64_t pfn) const { return pfn; }
  // False where any pfn may have a frame, also of a sudden: when a query() found that frames moved.
  virtual bool knows_holes() const { return false; }

  // Of a host's dirty log that was just read, before the pages that it names are: bit i of `bitmap`
  // is pfn i. The memory takes it that each of them may have a frame by now, or another one, and
  // adds the pfns whose frame is another one where the logged pages tell (a guest's own p2m). No
  // other call may be under way.
  virtual bool follow_log(uint8_t* bitmap, uint64_t nr_pfns, Fault* fault) {
    (void)bitmap, (void)nr_pfns, (void)fault;
    return true;
  }

  // Copies the listed pages to dst, one after the other. `entries` are what query() said of them.
  // A page that can no longer be read is an error (code GUEST_MEMORY_UNREADABLE), never skipped.
  virtual bool copy_out(const uint64_t* pfns, const uint64_t* entries, uint32_t n, uint8_t* dst,
                        Fault* fault) = 0;

  // The page itself where it can be read in place, else null. It may change under the reader: for
  // hashing a guest that stands still, not for parsing.
  virtual const uint8_t* peek(uint64_t pfn, uint64_t entry) {
    (void)pfn, (void)entry;
    return nullptr;
  }

  // Writes the listed pages of a domain that is being built. Fails on a read-only memory.
  virtual bool copy_in(const uint64_t* pfns, uint32_t n, const uint8_t* src, Fault* fault) = 0;

  // True where a freshly populated frame is known to be all zero.
  virtual bool populate_gives_zeroes() const = 0;
};

}  // namespace dormouse::host
