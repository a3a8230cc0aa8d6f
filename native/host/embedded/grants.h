// What a domain lets its backends reach: pages behind the entries of its grant table, which lies in
// its own memory and so travels with it.
#pragma once
#include <cstdint>

#include "host/embedded/device_layout.h"
#include "host/embedded/domain.h"

namespace dormouse::embedded {

// A backend's hold on memory for one look or one change. Between two of them the guest may take
// the page away, and a snapshot may be taken.
class GrantAccess {
 public:
  explicit GrantAccess(Domain& domain) : dom_(domain), io_(domain.io_lock), mmu_(domain.mmu) {}

  // The page behind a reference, to be read; null where the guest does not grant it.
  const uint8_t* to_read(uint32_t gref) { return page(gref, false); }
  // The page to be written: what must happen before a write has happened when this returns. Pages
  // that are page tables are nobody's to write.
  uint8_t* to_write(uint32_t gref);
  // Marks the page in the dirty log, as Xen does when a mapping that may write ends.
  void unmap(uint32_t gref);
  // Calls for the PFN of every page that the domain grants to be written.
  template <typename Visit>
  static void for_writable(Domain& dom, Visit visit) {
    const bool any = dom.guest && dom.guest->grant_pfn != 0;
    for (uint32_t gref = 0; any && gref < kGrantEntries; gref++) {
      GrantEntry entry;
      if (lookup(dom, gref, true, &entry)) visit(entry.frame);
    }
  }

 private:
  static bool lookup(Domain& dom, uint32_t gref, bool write, GrantEntry* entry);
  uint8_t* page(uint32_t gref, bool write);

  Domain& dom_;
  std::lock_guard<std::mutex> io_, mmu_;
  uint64_t mfn_ = 0;
};

}  // namespace dormouse::embedded
