// Which pages of a domain changed since they were last written to an image, found by their content:
// for hosts that cannot log dirty pages. A hash per page is taken of what the image holds of it (a
// page table in its canonical form) and compared with the page as it is now.
#pragma once
#include <cstdint>
#include <vector>

#include "host/host.h"
#include "pfn/page_scan.h"

namespace dormouse::step {

// 16 bytes a pfn. Functions may be called from several threads on disjoint pfns.
class ContentTracker {
 public:
  explicit ContentTracker(uint64_t nr_pfns) : hashes_(nr_pfns, kUnknown) {}
  uint64_t nr_pfns() const { return hashes_.size(); }

  // What the image now holds of the page: its type and, for a type with a body, its content (page
  // tables canonicalised); null else.
  void record(uint64_t pfn, uint8_t type, const uint8_t* page) { hashes_[pfn] = of(type, page); }
  // The image holds nothing valid of it: it counts as changed until recorded.
  void forget(uint64_t pfn) { hashes_[pfn] = kUnknown; }

  // Hashes pfns [first, first + count) as they are: a live pass that keeps no copy. A page table
  // that cannot be canonicalised now, and a page that vanishes, is forgotten.
  bool record_range(host::DomainMemory& memory, uint64_t first, uint64_t count, Fault* fault);

  // Sets bit (pfn - first) of `bitmap` for each page of [first, first + count) that is not as
  // recorded, and clears the others; first is a multiple of 8. Exact for a guest that stands
  // still. A page table that cannot be canonicalised and a page that cannot be read count as
  // changed: saving them says why. *changed grows
  // by the number of bits set.
  bool changed_since(host::DomainMemory& memory, uint64_t first, uint64_t count, uint8_t* bitmap,
                     uint64_t* changed, Fault* fault) const;

  // The same over all pfns by up to `threads` threads; bitmap has (nr_pfns + 7) / 8 bytes.
  bool changed_in_all(host::DomainMemory& memory, unsigned threads, uint8_t* bitmap,
                      uint64_t* changed, Fault* fault) const;

 private:
  static constexpr pfn::Hash128 kUnknown{~0ull, ~0ull};
  static pfn::Hash128 of(uint8_t type, const uint8_t* page);
  std::vector<pfn::Hash128> hashes_;
};

}  // namespace dormouse::step
