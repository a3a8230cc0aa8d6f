// A guest's network driver, as Linux's xen-netfront: it copies frames into pages of its own, and
// keeps the backend in empty ones for what arrives. In a new domain it begins anew: frames that
// were on their way are lost, as the guest must expect of frames.
#pragma once
#include <cstdint>

#include "host/embedded/frontend.h"
#include "host/embedded/netif.h"

namespace dormouse::embedded {

class NetworkFrontend : Frontend {
 public:
  NetworkFrontend(Vcpu& cpu, const GuestText& text, uint32_t network)
      : Frontend(cpu, text, *cpu.domain.networks[network]), network_(network) {}

  static FrontendSeen look(const Domain& domain, uint32_t network);

  // Meets a device: empty rings. False where it was closed for good, or after a fault.
  bool connect();
  // One step towards the end of the device; true once it is closed and nothing is left of it.
  bool close();

  // Sends a frame of so many bytes, at most kMostFrameBytes; false if there is no room for it now.
  bool send(const uint8_t* frame, uint32_t bytes);
  // Takes the next frame that arrived, into kMostFrameBytes; false if there is none.
  bool receive(uint8_t* frame, uint32_t* bytes);
  // The interface's own address.
  bool mac(uint8_t* to);

 private:
  struct Page {
    uint32_t state, tx_ref, rx_ref;
    uint32_t tx_prod, tx_cons, rx_prod, rx_cons;
    uint8_t mac[kMacBytes], pad[2];
    uint8_t sending[kNetworkSlots];
  };
  static_assert(sizeof(Page) <= 4096 && kNetworkPages == 3 + 2 * kNetworkSlots);

  // The driver's page, the two rings, and a page for each frame that is sent and each to come.
  uint64_t pfn() const { return text_.network_pfn + uint64_t(kNetworkPages) * network_; }
  uint64_t tx_pfn(uint32_t slot) const { return pfn() + 3 + slot; }
  uint64_t rx_pfn(uint32_t slot) const { return pfn() + 3 + kNetworkSlots + slot; }
  uint32_t grant(uint32_t index) const;
  uint32_t tx_grant(uint32_t slot) const { return grant(2 + slot); }
  uint32_t rx_grant(uint32_t slot) const { return grant(2 + kNetworkSlots + slot); }
  bool collect_sent();
  bool offer(uint32_t slot, Page* page, NetRxRing* ring);
  bool wipe();

  const uint32_t network_;
};

}  // namespace dormouse::embedded
