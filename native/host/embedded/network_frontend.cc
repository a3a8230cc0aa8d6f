#include "host/embedded/network_frontend.h"

#include <cstring>

namespace dormouse::embedded {

// They come after those of the disks.
uint32_t NetworkFrontend::grant(uint32_t index) const {
  constexpr uint32_t kEach = 2 + 2 * kNetworkSlots;
  static_assert(kFirstNetworkGrant + kMaxNetworks * kEach <= kGrantEntries);
  return kFirstNetworkGrant + network_ * kEach + index;
}

FrontendSeen NetworkFrontend::look(const Domain& domain, uint32_t network) {
  const uint64_t pfn = domain.guest->network_pfn + uint64_t(kNetworkPages) * network;
  if (!domain.has_frame(pfn)) return {};
  const auto* page = reinterpret_cast<const Page*>(domain.machine.page(domain.mfn(pfn)));
  return {__atomic_load_n(&page->state, __ATOMIC_ACQUIRE), {page->tx_ref, page->rx_ref}};
}

bool NetworkFrontend::offer(uint32_t slot, Page* page, NetRxRing* ring) {
  if (!set_grant(rx_grant(slot), rx_pfn(slot), kGrantPermitAccess)) return false;
  ring->ring[page->rx_prod++ % kNetRingEntries].req = {uint16_t(slot), 0, rx_grant(slot)};
  return true;
}

bool NetworkFrontend::connect() {
  cpu_.sync_tlb();
  Page* page = to_write<Page>(pfn());
  auto* tx = to_write<NetTxRing>(pfn() + 1);
  auto* rx = to_write<NetRxRing>(pfn() + 2);
  if (!page || !tx || !rx || page->state == kXenbusClosed) return false;
  std::memset(tx, 0, kPageSize);
  std::memset(rx, 0, kPageSize);
  tx->req_event = tx->rsp_event = rx->req_event = rx->rsp_event = 1;
  *page = {};
  page->tx_ref = grant(0);
  page->rx_ref = grant(1);
  std::memcpy(page->mac, cpu_.domain.networks[network_]->options().mac.data(), kMacBytes);
  if (!set_grant(grant(0), pfn() + 1, kGrantPermitAccess)) return false;
  if (!set_grant(grant(1), pfn() + 2, kGrantPermitAccess)) return false;
  for (uint32_t slot = 0; slot < kNetworkSlots; slot++)
    if (!set_grant(tx_grant(slot), 0, 0) || !offer(slot, page, rx)) return false;
  push_requests(rx, page->rx_prod);
  page->state = kXenbusConnected;
  return true;
}

bool NetworkFrontend::mac(uint8_t* to) {
  const Page* page = to_read<Page>(pfn());
  if (page) std::memcpy(to, page->mac, kMacBytes);
  return page;
}

// Frees the pages of what was sent.
bool NetworkFrontend::collect_sent() {
  const Page* seen = to_read<Page>(pfn());
  const auto* ring = to_read<NetTxRing>(pfn() + 1);
  if (!seen || !ring) return false;
  const uint32_t prod = __atomic_load_n(&ring->rsp_prod, __ATOMIC_ACQUIRE);
  if (prod == seen->tx_cons) return true;
  if (prod - seen->tx_cons > kNetworkSlots)
    return cpu_.fault("the ring of its network is broken", network_);
  Page* page = to_write<Page>(pfn());
  auto* shared = to_write<NetTxRing>(pfn() + 1);
  if (!page || !shared) return false;
  for (; page->tx_cons != prod; page->tx_cons++) {
    const NetTxResponse response = shared->ring[page->tx_cons % kNetRingEntries].rsp;
    if (response.id >= kNetworkSlots || !page->sending[response.id])
      return cpu_.fault("BAD: a frame was sent that was not given", response.id);
    if (response.status != kNetOkay) return cpu_.fault("BAD: a frame was refused", response.id);
    page->sending[response.id] = 0;
    if (!set_grant(tx_grant(response.id), 0, 0)) return false;
  }
  __atomic_store_n(&shared->rsp_event, page->tx_cons + 1, __ATOMIC_SEQ_CST);
  return true;
}

bool NetworkFrontend::send(const uint8_t* frame, uint32_t bytes) {
  if (!collect_sent()) return false;
  Page* page = to_write<Page>(pfn());
  auto* ring = to_write<NetTxRing>(pfn() + 1);
  if (!page || !ring) return false;
  uint32_t slot = 0;
  while (slot < kNetworkSlots && page->sending[slot]) slot++;
  if (slot == kNetworkSlots) return false;
  auto* buffer = to_write<uint8_t>(tx_pfn(slot));
  if (!buffer) return false;
  std::memcpy(buffer, frame, bytes);
  if (!set_grant(tx_grant(slot), tx_pfn(slot), kGrantPermitAccess | kGrantReadOnly)) return false;
  ring->ring[page->tx_prod++ % kNetRingEntries].req = {tx_grant(slot), 0, 0, uint16_t(slot),
                                                       uint16_t(bytes)};
  page->sending[slot] = 1;
  push_requests(ring, page->tx_prod);
  return true;
}

bool NetworkFrontend::receive(uint8_t* frame, uint32_t* bytes) {
  const Page* seen = to_read<Page>(pfn());
  const auto* ring_seen = to_read<NetRxRing>(pfn() + 2);
  if (!seen || !ring_seen) return false;
  const uint32_t prod = __atomic_load_n(&ring_seen->rsp_prod, __ATOMIC_SEQ_CST);
  if (prod == seen->rx_cons) return false;
  Page* page = to_write<Page>(pfn());
  auto* ring = to_write<NetRxRing>(pfn() + 2);
  if (!page || !ring) return false;
  const NetRxResponse response = ring->ring[page->rx_cons % kNetRingEntries].rsp;
  if (prod - page->rx_cons > kNetworkSlots || response.id >= kNetworkSlots ||
      response.offset != 0 || response.status < 0 || uint32_t(response.status) > kMostFrameBytes)
    return cpu_.fault("the ring of its network is broken", network_);
  const auto* buffer = to_read<uint8_t>(rx_pfn(response.id));
  if (!buffer) return false;
  *bytes = uint32_t(response.status);
  std::memcpy(frame, buffer, *bytes);
  page->rx_cons++;
  if (!offer(response.id, page, ring)) return false;
  __atomic_store_n(&ring->rsp_event, page->rx_cons + 1, __ATOMIC_SEQ_CST);
  push_requests(ring, page->rx_prod);
  return true;
}

// Nothing of the device is left but that it is closed: not even what it sent and received last.
bool NetworkFrontend::wipe() {
  for (uint32_t index = 0; index < 2 + 2 * kNetworkSlots; index++)
    if (!set_grant(grant(index), 0, 0)) return false;
  for (uint32_t i = 0; i < kNetworkPages; i++) {
    auto* page = to_write<uint8_t>(pfn() + i);
    if (!page) return false;
    std::memset(page, 0, kPageSize);
  }
  Page* page = to_write<Page>(pfn());
  if (!page) return false;
  page->state = kXenbusClosed;
  forget_events();
  return true;
}

bool NetworkFrontend::close() {
  const Page* seen = to_read<Page>(pfn());
  if (!seen) return false;
  if (seen->state != kXenbusConnected && seen->state != kXenbusClosing) return true;
  return ask_to_close<Page>(pfn()) && wipe();
}

}  // namespace dormouse::embedded
