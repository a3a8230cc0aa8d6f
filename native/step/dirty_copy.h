// Room for the pages that are copied while a guest stands still: taken and touched beforehand, so
// that nothing is allocated in the pause.
#pragma once
#include <cstdint>
#include <vector>

#include "host/host.h"
#include "image/writer.h"
#include "step/pending_set.h"

namespace dormouse::step {

class DirtyCopy {
 public:
  ~DirtyCopy();
  // Room for that many pages. NO_MEMORY.
  bool allocate(uint64_t max_pages, Fault* fault);
  uint64_t max_pages() const { return pfns_.size(); }
  // Pages held, with a body or without.
  uint64_t size() const { return held_; }

  // Copies the pages of the set, which are at most max_pages(), replacing what was held. Their
  // tables are canonicalised at once, as m2p and p2m go on changing when the guest does.
  // `anywhere`: the guest is not at its suspend point and may map pages of the hypervisor's own.
  // Faults: PAGE_TABLE_INVALID, GUEST_MEMORY_UNREADABLE.
  bool copy(host::DomainMemory& memory, const PendingSet& set, bool anywhere, Fault* fault);

  // Calls visit(pfn, entry, page) for pages [first, first + count) of those held, which were not
  // put yet; page is null for one without a body.
  template <typename Visit>
  void for_each(uint64_t first, uint64_t count, Visit visit) const {
    for (uint64_t at = first; at < first + count && at < held_; ++at) {
      const bool body = host::has_body(host::type_of(entries_[at]));
      visit(pfns_[at], entries_[at],
            body ? pages_ + uint64_t(body_at_[at]) * host::kPageSize : nullptr);
    }
  }

  // Appends pages [first, first + count) of those held to an image. Each page once: it is consumed.
  bool put(image::Writer& writer, uint32_t lane, uint64_t first, uint64_t count,
           uint64_t counts[16], Fault* fault);

 private:
  bool copy_block(host::DomainMemory& memory, uint32_t n, bool anywhere, Fault* fault);

  uint8_t* pages_ = nullptr;
  uint64_t bytes_ = 0;
  uint64_t held_ = 0, bodies_ = 0;
  std::vector<uint64_t> pfns_, entries_;
  std::vector<uint32_t> body_at_;  // bodies before each page
};

}  // namespace dormouse::step
