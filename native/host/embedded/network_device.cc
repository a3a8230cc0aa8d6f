#include "host/embedded/network_device.h"

#include <cstring>

#include "host/embedded/grants.h"

namespace dormouse::embedded {

namespace {

constexpr size_t kMostOnWire = 256;

template <typename Ring>
uint32_t answered(GrantAccess& grants, uint32_t ref) {
  const auto* ring = reinterpret_cast<const Ring*>(grants.to_read(ref));
  return ring ? __atomic_load_n(&ring->rsp_prod, __ATOMIC_ACQUIRE) : 0;
}

// Publishes what was answered and says whether the frontend is to be told.
template <typename Ring>
bool push_answers(Ring* ring, uint32_t old, uint32_t prod) {
  __atomic_store_n(&ring->rsp_prod, prod, __ATOMIC_SEQ_CST);
  return ring_wants_notice(old, prod, __atomic_load_n(&ring->rsp_event, __ATOMIC_SEQ_CST));
}

}  // namespace

void NetworkDevice::attach(uint32_t tx_ref, uint32_t rx_ref) {
  join();
  tx_ref_ = tx_ref;
  rx_ref_ = rx_ref;
  {
    GrantAccess grants(domain_);
    tx_cons_ = answered<NetTxRing>(grants, tx_ref);
    rx_cons_ = answered<NetRxRing>(grants, rx_ref);
  }
  start();
}

// --- the thread

bool NetworkDevice::serve_once() {
  std::vector<NetTxResponse> taken;
  if (!take(&taken)) return false;
  if (!taken.empty() && (!wait_to_answer() || !answer(taken))) return false;
  return deliver();
}

// False for a ring that cannot be: nothing more is taken from it.
bool NetworkDevice::take(std::vector<NetTxResponse>* taken) {
  GrantAccess grants(domain_);
  auto* ring = reinterpret_cast<NetTxRing*>(grants.to_write(tx_ref_));
  if (!ring) return false;
  const uint32_t prod = __atomic_load_n(&ring->req_prod, __ATOMIC_ACQUIRE);
  if (prod - tx_cons_ > kNetRingEntries) return false;
  for (; tx_cons_ != prod; tx_cons_++) {
    NetTxRequest request;
    std::memcpy(&request, &ring->ring[tx_cons_ % kNetRingEntries], sizeof request);
    taken->push_back({request.id, send(request, grants.to_read(request.gref))});
  }
  // From the next request on the frontend says so; one that came meanwhile is seen here.
  __atomic_store_n(&ring->req_event, tx_cons_ + 1, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&ring->req_prod, __ATOMIC_SEQ_CST) != tx_cons_) kick();
  return true;
}

int16_t NetworkDevice::send(const NetTxRequest& request, const uint8_t* page) {
  if (!page || (request.flags & (kNetMoreData | kNetExtraInfo))) return kNetError;
  if (request.size < kFrameHeaderBytes || request.size > kMostFrameBytes) return kNetError;
  if (request.offset + uint32_t(request.size) > kPageSize) return kNetError;
  Frame frame(page + request.offset, page + request.offset + request.size);
  for (uint32_t i = 0; i < kMacBytes; i++) std::swap(frame[i], frame[kMacBytes + i]);
  put_on_wire(std::move(frame));
  return kNetOkay;
}

void NetworkDevice::put_on_wire(Frame frame) {
  const uint64_t chance = seed();
  const uint64_t fate = chance ? draw(chance) % 8 : 7;
  if (fate == 0 || wire_.size() >= kMostOnWire) return;
  if (fate == 1) wire_.push_back(frame);
  if (fate == 2)
    wire_.push_front(std::move(frame));
  else
    wire_.push_back(std::move(frame));
}

bool NetworkDevice::answer(const std::vector<NetTxResponse>& taken) {
  bool wanted;
  {
    GrantAccess grants(domain_);
    auto* ring = reinterpret_cast<NetTxRing*>(grants.to_write(tx_ref_));
    if (!ring) return false;
    const uint32_t old = ring->rsp_prod;
    uint32_t prod = old;
    for (const NetTxResponse& one : taken) ring->ring[prod++ % kNetRingEntries].rsp = one;
    wanted = push_answers(ring, old, prod);
  }
  if (wanted) notify_guest();
  return true;
}

// Puts what is on the wire into the buffers that the frontend gives for it, as far as they go.
bool NetworkDevice::deliver() {
  bool wanted = false;
  {
    GrantAccess grants(domain_);
    auto* ring = reinterpret_cast<NetRxRing*>(grants.to_write(rx_ref_));
    if (!ring) return false;
    const uint32_t prod = __atomic_load_n(&ring->req_prod, __ATOMIC_ACQUIRE), old = rx_cons_;
    if (prod - rx_cons_ > kNetRingEntries) return false;
    for (; rx_cons_ != prod && !wire_.empty(); rx_cons_++, wire_.pop_front()) {
      NetRxEntry& entry = ring->ring[rx_cons_ % kNetRingEntries];
      const NetRxRequest request = entry.req;
      const Frame& frame = wire_.front();
      uint8_t* page = grants.to_write(request.gref);
      if (page) std::memcpy(page, frame.data(), frame.size());
      grants.unmap(request.gref);  // a copy by grant is in the log at once
      entry.rsp = {request.id, 0, 0, page ? int16_t(frame.size()) : int16_t(kNetError)};
    }
    if (rx_cons_ != old) wanted = push_answers(ring, old, rx_cons_);
    __atomic_store_n(&ring->req_event, rx_cons_ + 1, __ATOMIC_SEQ_CST);
    const bool more = __atomic_load_n(&ring->req_prod, __ATOMIC_SEQ_CST) != rx_cons_;
    if (more && !wire_.empty()) kick();
  }
  if (wanted) notify_guest();
  return true;
}

}  // namespace dormouse::embedded
