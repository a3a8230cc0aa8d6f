// Takes a domain that stands still back to another instant of its own, in place: its frames stay
// where they are, and its backends are off meanwhile. Its memory is read as it is; once begun it
// may be written to.
#pragma once
#include <memory>
#include <vector>

#include "host/xen/domain_links.h"
#include "host/xen/pv_state.h"
#include "host/xen/timer_events.h"
#include "host/xen/writable_pages.h"
#include "host/xen/xen_memory.h"

namespace dormouse::xen {

class DomainRewriter : public host::DomainMemory {
 public:
  static std::shared_ptr<DomainRewriter> open(std::shared_ptr<Handles> xen, uint32_t domid,
                                              std::shared_ptr<XenMemory> memory, Fault* fault);

  // While it runs: looks for what land() goes by.
  bool look(Fault* fault);
  // Its backends are off: nobody may have a grant mapped that is to be another, or an end of a
  // channel that is to be raised, and no page of it may be a descriptor table. HOST_LACKS.
  bool check_ties(const LinksBlobs& links, const RingEnds& rings, Fault* fault);
  // From here on a PV domain is none that could run: its vCPUs are down, and its page tables pages
  // like others. All of its frames can be written to.
  bool begin(Fault* fault);
  // All pages are as they were then, and so is the rest after this: page tables, registers, grants;
  // no event of a device is on its way, each is then raised once, as it may have been lost.
  // *timers: why those of its vCPUs could not be raised too; else empty.
  bool land(const std::vector<TableToPin>& pins, const StateBlobs& state, const LinksBlobs& links,
            const RingEnds& rings, std::string* timers, Fault* fault);
  void unmap() { pages_.unmap(); }

  host::FrameMaps maps() const override { return memory_->maps(); }
  uint64_t nr_pfns() const override { return memory_->nr_pfns(); }
  bool query(uint64_t first, uint32_t n, uint64_t* entries, Fault* fault) override {
    return memory_->query(first, n, entries, fault);
  }
  uint64_t next_present(uint64_t pfn) const override { return memory_->next_present(pfn); }
  bool knows_holes() const override { return memory_->knows_holes(); }
  bool follow_log(uint8_t* bitmap, uint64_t nr_pfns, Fault* fault) override {
    return memory_->follow_log(bitmap, nr_pfns, fault);
  }
  bool copy_out(const uint64_t* pfns, const uint64_t* entries, uint32_t n, uint8_t* dst,
                Fault* fault) override {
    return memory_->copy_out(pfns, entries, n, dst, fault);
  }
  const uint8_t* peek(uint64_t pfn, uint64_t entry) override { return memory_->peek(pfn, entry); }
  bool copy_in(const uint64_t* pfns, uint32_t n, const uint8_t* src, Fault* fault) override;
  bool populate_gives_zeroes() const override { return false; }

 private:
  DomainRewriter(std::shared_ptr<Handles> xen, uint32_t domid, std::shared_ptr<XenMemory> memory)
      : xen_(std::move(xen)),
        domid_(domid),
        memory_(std::move(memory)),
        pages_(xen_, domid_, frames_) {}
  template <typename Visit>
  bool each_entry(const Visit& visit, Fault* fault);
  bool list_frames(Fault* fault);
  bool check_grants(const LinksBlobs& links, Fault* fault);
  bool check_descriptors(Fault* fault);
  bool reset_vcpus(Fault* fault);
  bool unpin_tables(Fault* fault);
  bool put_grants(const LinksBlobs& links, Fault* fault);
  bool forget_shutdown(Fault* fault);
  bool raise_timers(const StateBlobs& state, const LinksBlobs& links, std::string* why,
                    Fault* fault);
  // How a vCPU that waits is told that there are events for it.
  enum class Wake { itself, callback, message, unknown };
  bool put_registers(const std::vector<TableToPin>& pins, const StateBlobs& state, Wake wake,
                     Fault* fault);
  bool find_wake(Wake* wake, Fault* fault);
  bool wake_vcpus(const StateBlobs& state, Wake wake, Fault* fault);
  bool put_rings(const LinksBlobs& links, Fault* fault);
  bool clear_events(const LinksBlobs& links, const RingEnds& rings, Fault* fault);
  template <typename Visit>
  bool each_device_channel(const LinksBlobs& links, const RingEnds& rings, const Visit& visit,
                           Fault* fault);
  bool raise_events(const LinksBlobs& links, const RingEnds& rings, Fault* fault);

  std::shared_ptr<Handles> xen_;
  uint32_t domid_;
  std::shared_ptr<XenMemory> memory_;
  bool pv_ = false;
  std::vector<uint64_t> frames_;  // by pfn, once it may be written to
  WritablePages pages_;
  TimerEvents timers_;
};

}  // namespace dormouse::xen
