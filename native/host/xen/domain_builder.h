// Fills a domain that the toolstack has created and nobody has run yet: memory, page tables, vCPUs.
// Pages may be copied in and out by several threads, also while others are populated; the pfn space
// grows, frames are taken away and tables are pinned while nobody copies.
#pragma once
#include <memory>
#include <vector>

#include "host/host.h"
#include "host/xen/domain_state.h"
#include "host/xen/handles.h"
#include "host/xen/pv_state.h"
#include "host/xen/writable_pages.h"

namespace dormouse::xen {

// Frame numbers are machine frames (PV) or pfns (PVH, HVM).
struct RingFrames {
  uint64_t console, store;
};
struct RingOwners {
  uint32_t console_domid, store_domid;
};
struct RingPorts {
  uint32_t console, store;
};

class DomainBuilder : public host::DomainMemory {
 public:
  static std::shared_ptr<DomainBuilder> open(std::shared_ptr<Handles> xen, uint32_t domid,
                                             Fault* fault);

  bool is_pv() const { return pv_; }
  // Bodies of X86_CPUID_POLICY and X86_MSR_POLICY, each empty where there is none. Before vCPUs.
  bool set_policy(const Bytes& cpuid, const Bytes& msrs, Fault* fault);
  // Bytes of the guest's words (PV): before memory.
  bool set_width(uint32_t width, Fault* fault);
  // Size of the pfn space; it may grow.
  bool set_nr_pfns(uint64_t nr_pfns, Fault* fault);
  // Gives a frame to those of the pfns that have none. NO_MEMORY.
  bool populate(const uint64_t* pfns, uint64_t n, Fault* fault);
  // Takes the frames of pfns that have one away again.
  bool depopulate(const uint64_t* pfns, uint64_t n, Fault* fault);
  // Machine frame of a pfn (PV) or the pfn itself; kNoMfn where it has none.
  uint64_t frame(uint64_t pfn) const { return pfn < frames_.size() ? frames_[pfn] : host::kNoMfn; }
  bool shared_info_frame(uint64_t* frame, Fault* fault) const;
  // Nothing may be mapped writable: unmap() comes first. PAGE_TABLE_INVALID names the pfn.
  bool pin(const std::vector<TableToPin>& tables, Fault* fault);
  bool set_pv_state(const StateBlobs& state, Fault* fault);
  // *rings are those the parameters name.
  bool set_hvm_state(const StateBlobs& state, const RingPorts& ports, RingFrames* rings,
                     Fault* fault);
  bool seed_grants(const RingFrames& rings, const RingOwners& owners, Fault* fault);
  void unmap();

  host::FrameMaps maps() const override { return {frames_.data(), frames_.size(), nullptr, 0}; }
  uint64_t nr_pfns() const override { return frames_.size(); }
  bool query(uint64_t first, uint32_t n, uint64_t* entries, Fault* fault) override;
  bool copy_out(const uint64_t* pfns, const uint64_t* entries, uint32_t n, uint8_t* dst,
                Fault* fault) override;
  bool copy_in(const uint64_t* pfns, uint32_t n, const uint8_t* src, Fault* fault) override;
  // Xen need not have scrubbed what a living domain gave back.
  bool populate_gives_zeroes() const override { return false; }

 private:
  DomainBuilder(std::shared_ptr<Handles> xen, uint32_t domid)
      : xen_(std::move(xen)), domid_(domid), pages_(xen_, domid_, frames_) {}
  bool populate_batch(std::vector<xen_pfn_t>* batch, Fault* fault);
  bool set_param(uint64_t index, uint64_t value, RingFrames* rings, Fault* fault);

  std::shared_ptr<Handles> xen_;
  uint32_t domid_;
  bool pv_ = false;
  std::vector<uint64_t> frames_;
  WritablePages pages_;
};

}  // namespace dormouse::xen
