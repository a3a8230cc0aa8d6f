// How a domain is stopped, read and let go on real Xen.
#pragma once
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "host/xen/domain_links.h"
#include "host/xen/domain_state.h"
#include "host/xen/shared_pages.h"
#include "host/xen/stopped_capture.h"
#include "host/xen/xen_memory.h"

namespace dormouse::xen {

// One pause of a domain, of those that Xen counts.
class XenPause {
 public:
  // `stands` says at any time whether it is in force: also where a fault could not be made good.
  XenPause(std::shared_ptr<Handles> xen, uint32_t domid, uint8_t* stands)
      : xen_(std::move(xen)), domid_(domid), stands_(stands) {
    *stands_ = 0;
  }
  // Outside the interrupt shadow, where `memory` (it may be null) shows the domain's code.
  // `in_shadow`: vCPUs that did not leave it. `rests`, if there is one, is asked whether it is at
  // rest otherwise: it is then, or never was.
  using Rests = std::function<bool(bool* at_rest, Fault*)>;
  bool begin(XenMemory* memory, const Rests& rests, std::vector<uint32_t>* in_shadow, Fault* fault);
  bool end(Fault* fault);

 private:
  std::shared_ptr<Handles> xen_;
  uint32_t domid_;
  uint8_t* stands_;
};

class XenStoppable : public Stoppable {
 public:
  using Captured = std::function<bool(const StateBlobs&, const LinksBlobs&)>;

  // `event_pages` are written by Xen past its log; `stands` as of XenPause.
  XenStoppable(std::shared_ptr<Handles> xen, uint32_t domid, std::shared_ptr<XenMemory> memory,
               RingEnds rings, std::vector<RingPage> ring_pages, std::vector<uint64_t> event_pages,
               Captured captured, uint8_t* stands)
      : xen_(std::move(xen)),
        domid_(domid),
        pause_(xen_, domid, stands),
        memory_(std::move(memory)),
        event_pages_(std::move(event_pages)),
        captured_(std::move(captured)),
        shared_(xen_, domid),
        links_(xen_, domid, memory_, rings, std::move(ring_pages), event_pages_) {}

  bool prepare(bool logged, Fault* fault) override;
  bool stop(Fault* fault) override;
  bool read_log(uint64_t nr_pfns, std::vector<uint8_t>* log, Fault* fault) override;
  bool read_registers(Fault* fault) override;
  bool catch_up(bool logged, Fault* fault) override { return memory_->catch_up(logged, fault); }
  bool captured(Fault*) override;
  bool go_on(Fault* fault) override { return pause_.end(fault); }
  const std::vector<uint32_t>& in_shadow() const { return in_shadow_; }

 private:
  std::shared_ptr<Handles> xen_;
  uint32_t domid_;
  XenPause pause_;
  std::shared_ptr<XenMemory> memory_;
  std::vector<uint64_t> event_pages_;
  Captured captured_;
  SharedPages shared_;
  DomainLinks links_;
  StateBlobs state_;
  std::vector<uint32_t> in_shadow_;
};

}  // namespace dormouse::xen
