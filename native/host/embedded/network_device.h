// A network interface of a domain as its backend has it. At the other end of the wire each frame is
// sent back to who sent it. Frames that are on their way are of no domain's memory: as on a real
// wire they may be lost, and those sent before a domain went back in time arrive after.
#pragma once
#include <array>
#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "host/embedded/backend.h"
#include "host/embedded/netif.h"

namespace dormouse::embedded {

struct NetworkOptions {
  std::array<uint8_t, kMacBytes> mac{};
  uint32_t port = 0;  // the event channel, both ends of it
};

class NetworkDevice : public Backend {
 public:
  NetworkDevice(Domain& domain, NetworkOptions options)
      : Backend(domain, options.port, "dormouse-netback"), options_(options) {}
  ~NetworkDevice() override { end(); }

  // A frontend came: what it has no answer to is sent, and its empty buffers are filled.
  void attach(uint32_t tx_ref, uint32_t rx_ref);

  const NetworkOptions& options() const { return options_; }

 private:
  using Frame = std::vector<uint8_t>;

  bool serve_once() override;
  bool take(std::vector<NetTxResponse>* taken);
  int16_t send(const NetTxRequest& request, const uint8_t* page);
  void put_on_wire(Frame frame);
  bool answer(const std::vector<NetTxResponse>& taken);
  bool deliver();

  const NetworkOptions options_;
  // The thread's own while there is one.
  uint32_t tx_ref_ = 0, rx_ref_ = 0, tx_cons_ = 0, rx_cons_ = 0;
  std::deque<Frame> wire_;
};

}  // namespace dormouse::embedded
