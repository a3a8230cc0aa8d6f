// What the drivers of a guest's devices share. What a driver knows is in guest memory; its code
// runs as a vCPU does, in a step or while the domain is held.
#pragma once
#include <cstdint>
#include <cstring>
#include <mutex>

#include "host/embedded/backend.h"
#include "host/embedded/domain.h"

namespace dormouse::embedded {

// How far the driver of a domain that stands still has come, and the references of its rings: a
// disk has one.
struct FrontendSeen {
  uint32_t state = 0, rings[2] = {0, 0};

  bool serves() const { return state == kXenbusConnected || state == kXenbusClosing; }
};

class Frontend {
 protected:
  Frontend(Vcpu& cpu, const GuestText& text, Backend& backend)
      : cpu_(cpu), text_(text), backend_(backend), lock_(backend.front_lock) {}

  template <typename Page>
  const Page* to_read(uint64_t pfn) {
    return reinterpret_cast<const Page*>(cpu_.load_page(linear(pfn)));
  }
  template <typename Page>
  Page* to_write(uint64_t pfn) {
    return reinterpret_cast<Page*>(cpu_.store_page(linear(pfn)));
  }
  bool set_grant(uint32_t gref, uint64_t pfn, uint16_t flags) {
    const GrantEntry entry{flags, 0, uint32_t(pfn)};
    uint64_t word;
    std::memcpy(&word, &entry, sizeof word);
    return cpu_.store(linear(text_.grant_pfn) + gref * sizeof entry, word);
  }
  // Requests up to `prod` are there for the backend.
  template <typename Ring>
  void push_requests(Ring* ring, uint32_t prod) {
    const uint32_t old = ring->req_prod;
    __atomic_store_n(&ring->req_prod, prod, __ATOMIC_SEQ_CST);
    if (ring_wants_notice(old, prod, __atomic_load_n(&ring->req_event, __ATOMIC_SEQ_CST)))
      backend_.kick();
  }
  // One step towards the end of the device; true once there is no backend any more.
  template <typename Page>
  bool ask_to_close(uint64_t pfn) {
    const Page* seen = to_read<Page>(pfn);
    if (!seen) return false;
    if (seen->state == kXenbusClosing && !backend_.attached()) return true;
    if (seen->state == kXenbusConnected) {
      Page* page = to_write<Page>(pfn);
      if (!page) return false;
      __atomic_store_n(&page->state, kXenbusClosing, __ATOMIC_RELEASE);
      tell();
    }
    backend_.ask_to_close();
    return false;
  }
  // The device is closed: no event of it is left.
  void forget_events() {
    const uint32_t port = backend_.port();
    SharedInfo& info = cpu_.domain.shared_info();
    __atomic_fetch_and(&info.evtchn_pending[port / 64], ~(1ull << port % 64), __ATOMIC_SEQ_CST);
    tell();
  }
  void tell() { cpu_.domain.machine.on_event({cpu_.domain.domid, Event::kDevice, -1}); }

  Vcpu& cpu_;
  const GuestText& text_;

 private:
  Backend& backend_;
  std::lock_guard<std::mutex> lock_;
};

}  // namespace dormouse::embedded
