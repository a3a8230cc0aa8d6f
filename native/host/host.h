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

namespace dormouse::host {

constexpr uint64_t kPageSize = 4096;
constexpr uint64_t kMfnMask = (1ull << 52) - 1;
constexpr uint64_t kNoMfn = kMfnMask;

// Page type nibbles (xen/include/public/domctl.h, XEN_DOMCTL_PFINFO_*; stream specification 1.3).
enum PageType : uint8_t {
  kNotab = 0x0,
  kL1 = 0x1,
  kL2 = 0x2,
  kL3 = 0x3,
  kL4 = 0x4,
  kPinned = 0x8,  // or-ed with kL1..kL4
  kBroken = 0xD,
  kXalloc = 0xE,
  kXtab = 0xF,
};
constexpr uint8_t type_of(uint64_t entry) { return entry >> 60; }
constexpr uint64_t mfn_of(uint64_t entry) { return entry & kMfnMask; }
// 1..4 for a page table (pinned or not), 0 for anything else.
constexpr int table_level(uint8_t type) {
  const int level = type & 0x7;
  return type < kBroken && level >= 1 && level <= 4 ? level : 0;
}
// True for the types whose content travels (everything but broken, xalloc and xtab).
constexpr bool has_body(uint8_t type) { return type < kBroken; }

// How an MFN is judged: it is the domain's only if m2p[mfn] < nr_pfns and p2m[m2p[mfn]] == mfn.
// p2m entries are masked with kMfnMask before use (they may carry a type nibble).
// Pointers stay valid as long as the DomainMemory they came from.
struct FrameMaps {
  const uint64_t* p2m;
  uint64_t nr_pfns;
  const uint64_t* m2p;
  uint64_t nr_mfns;
};

// A domain's memory, live or as of a snapshot. All functions may be called from several threads at
// once on disjoint pfns. `n` is at most 1024 for each call (Xen's own limit for a type batch).
class DomainMemory {
 public:
  virtual ~DomainMemory() = default;

  virtual FrameMaps maps() const = 0;

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
