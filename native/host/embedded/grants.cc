#include "host/embedded/grants.h"

#include <cstring>

namespace dormouse::embedded {

bool GrantAccess::lookup(Domain& dom, uint32_t gref, bool write, GrantEntry* entry) {
  constexpr uint32_t kPerPage = kPageSize / sizeof(GrantEntry);
  if (!dom.guest || dom.guest->grant_pfn == 0 || gref >= kGrantEntries) return false;
  const uint64_t table = dom.guest->grant_pfn + gref / kPerPage;
  if (!dom.has_frame(table)) return false;
  const uint64_t word =
      __atomic_load_n(dom.machine.words(dom.mfn(table)) + gref % kPerPage, __ATOMIC_ACQUIRE);
  std::memcpy(entry, &word, sizeof word);
  if (!(entry->flags & kGrantPermitAccess) || entry->domid != 0) return false;
  if (write && (entry->flags & kGrantReadOnly)) return false;
  return dom.has_frame(entry->frame);
}

uint8_t* GrantAccess::page(uint32_t gref, bool write) {
  GrantEntry entry;
  if (!lookup(dom_, gref, write, &entry)) return nullptr;
  mfn_ = dom_.mfn(entry.frame);
  const Frame& frame = dom_.machine.frame(mfn_);
  const bool table = frame.type_count != 0 && frame.type >= kTypeL1 && frame.type <= kTypeL4;
  return write && table ? nullptr : dom_.machine.page(mfn_);
}

uint8_t* GrantAccess::to_write(uint32_t gref) {
  uint8_t* at = page(gref, true);
  if (at) dom_.before_write(mfn_, !(dom_.unlogged & Domain::kGranted));
  return at;
}

void GrantAccess::unmap(uint32_t gref) {
  GrantEntry entry;
  if (lookup(dom_, gref, true, &entry)) dom_.mark_dirty(entry.frame);
}

}  // namespace dormouse::embedded
