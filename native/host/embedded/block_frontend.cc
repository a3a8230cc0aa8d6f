#include "host/embedded/block_frontend.h"

#include <cstring>

namespace dormouse::embedded {

namespace {
// 0 to 7 are Xen's, then come the rings, and from here four for each request of each disk.
constexpr uint32_t kFirstDataGrant = 16;
constexpr uint32_t kGrantsPerDisk = kRingEntries * BlockFrontend::kMaxSegments;
static_assert(kFirstDataGrant + kMaxDisks * kGrantsPerDisk <= kFirstNetworkGrant);
}  // namespace

FrontendSeen BlockFrontend::look(const Domain& domain, uint32_t disk) {
  const uint64_t pfn = page_pfn(*domain.guest, disk);
  if (!domain.has_frame(pfn)) return {};
  const auto* page = reinterpret_cast<const Page*>(domain.machine.page(domain.mfn(pfn)));
  return {__atomic_load_n(&page->state, __ATOMIC_ACQUIRE), {page->ring_ref, 0}};
}

uint32_t BlockFrontend::grant_of(uint32_t id, uint32_t segment) const {
  return kFirstDataGrant + disk_ * kGrantsPerDisk + id * kMaxSegments + segment;
}

uint64_t BlockFrontend::sectors() {
  const Page* page = read_page();
  return page ? page->sectors : 0;
}

// The request as the ring has it; its pages are granted for as long as it has no answer.
bool BlockFrontend::put(uint32_t id, Page* page, BlkRing* ring) {
  const Shadow& shadow = page->shadow[id];
  if (shadow.pages > kMaxSegments) return cpu_.fault("it remembers no request of its own", id);
  BlkRequest request{};
  request.operation = uint8_t(shadow.operation);
  request.nr_segments = uint8_t(shadow.pages);
  request.id = id;
  request.sector_number = shadow.sector;
  const uint16_t flags =
      shadow.operation == kBlkWrite ? kGrantPermitAccess | kGrantReadOnly : kGrantPermitAccess;
  for (uint32_t i = 0; i < shadow.pages; i++) {
    const uint32_t gref = grant_of(id, i);
    if (!set_grant(gref, shadow.pfns[i], flags)) return false;
    request.seg[i] = {gref, 0, kPageSectors - 1};
  }
  std::memcpy(&ring->ring[page->req_prod++ % kRingEntries], &request, sizeof request);
  return true;
}

bool BlockFrontend::connect() {
  cpu_.sync_tlb();
  Page* page = write_page();
  BlkRing* shared = ring();
  if (!page || !shared || page->state == kXenbusClosed) return false;
  std::memset(shared, 0, kPageSize);
  shared->req_event = shared->rsp_event = 1;
  page->req_prod = page->rsp_cons = 0;
  page->sectors = cpu_.domain.disks[disk_]->sectors();
  page->ring_ref = ring_grant();
  if (!set_grant(ring_grant(), page_pfn(text_, disk_) + 1, kGrantPermitAccess)) return false;
  for (uint32_t id = 0; id < kRingEntries; id++)
    if (page->shadow[id].used && !page->shadow[id].done && !put(id, page, shared)) return false;
  push_requests(shared, page->req_prod);
  page->state = kXenbusConnected;
  return true;
}

bool BlockFrontend::submit(const Wanted& wanted, uint32_t* id) {
  Page* page = write_page();
  BlkRing* shared = ring();
  if (!page || !shared) return false;
  *id = 0;
  while (*id < kRingEntries && page->shadow[*id].used) ++*id;
  if (*id == kRingEntries) return false;
  Shadow& shadow = page->shadow[*id];
  shadow = {};
  shadow.used = 1;
  shadow.operation = wanted.operation;
  shadow.sector = wanted.sector;
  shadow.pages = wanted.pages;
  std::memcpy(shadow.pfns, wanted.pfns, sizeof shadow.pfns);
  if (!put(*id, page, shared)) return false;
  push_requests(shared, page->req_prod);
  return true;
}

// Takes the answers that have come.
bool BlockFrontend::collect() {
  const Page* seen = read_page();
  const auto* ring_seen = to_read<BlkRing>(page_pfn(text_, disk_) + 1);
  if (!seen || !ring_seen) return false;
  uint32_t prod = __atomic_load_n(&ring_seen->rsp_prod, __ATOMIC_ACQUIRE);
  if (prod == seen->rsp_cons) return true;
  Page* page = write_page();
  BlkRing* shared = ring();
  if (!page || !shared) return false;
  do {
    if (prod - page->rsp_cons > kRingEntries)
      return cpu_.fault("the ring of its disk is broken", disk_);
    for (; page->rsp_cons != prod; page->rsp_cons++) {
      const BlkResponse response = shared->ring[page->rsp_cons % kRingEntries].rsp;
      if (response.id >= kRingEntries || !page->shadow[response.id].used ||
          page->shadow[response.id].done || page->shadow[response.id].pages > kMaxSegments)
        return cpu_.fault("BAD: an answer to what was not asked", response.id);
      Shadow& shadow = page->shadow[response.id];
      shadow.done = 1;
      shadow.status = response.status;
      for (uint32_t i = 0; i < shadow.pages; i++)
        if (!set_grant(grant_of(uint32_t(response.id), i), 0, 0)) return false;
    }
    __atomic_store_n(&shared->rsp_event, page->rsp_cons + 1, __ATOMIC_SEQ_CST);
    prod = __atomic_load_n(&shared->rsp_prod, __ATOMIC_SEQ_CST);
  } while (prod != page->rsp_cons);
  return true;
}

bool BlockFrontend::answered(uint32_t id, int16_t* status) {
  if (id >= kRingEntries) return cpu_.fault("it waits for no request of its own", id);
  if (!collect()) return false;
  const Page* seen = read_page();
  if (!seen || !seen->shadow[id].used || !seen->shadow[id].done) return false;
  Page* page = write_page();
  if (!page) return false;
  *status = page->shadow[id].status;
  page->shadow[id] = {};
  return true;
}

// Nothing of the device is left but that it is closed: where it was at in its ring is forgotten.
bool BlockFrontend::wipe() {
  Page* page = write_page();
  BlkRing* shared = ring();
  if (!page || !shared || !set_grant(ring_grant(), 0, 0)) return false;
  std::memset(shared, 0, kPageSize);
  *page = {};
  page->state = kXenbusClosed;
  forget_events();
  return true;
}

bool BlockFrontend::close() {
  const Page* seen = read_page();
  if (!seen) return false;
  if (seen->state != kXenbusConnected && seen->state != kXenbusClosing) return true;
  return ask_to_close<Page>(page_pfn(text_, disk_)) && wipe();
}

}  // namespace dormouse::embedded
