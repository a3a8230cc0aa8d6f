// A 64-bit PV guest's p2m as it is now: shared info and the leaf frames stay mapped read-only.
#pragma once
#include <memory>

#include "host/xen/handles.h"
#include "host/xen/machine_map.h"
#include "host/xen/p2m_walk.h"

namespace dormouse::xen {

class GuestP2m {
 public:
  // HOST_LACKS for a 32-bit guest; GUEST_MEMORY_UNREADABLE where the guest's p2m is not one.
  static std::unique_ptr<GuestP2m> open(std::shared_ptr<Handles> xen, const xc_domaininfo_t& info,
                                        Fault* fault);

  // Finds the leaves again if the guest's generation count says that they moved. *moved says so.
  bool refresh(bool* moved, Fault* fault);

  uint64_t nr_pfns() const { return leaves_.nr_pfns; }
  uint64_t generation() const { return found_at_.generation; }
  const MachineMap& machine() const { return *machine_; }

  // Machine frame of a pfn as the guest has it now; kNoMfn where it has none.
  uint64_t frame(uint64_t pfn) const;
  // Machine frames of the leaves, 512 entries each.
  const std::vector<uint64_t>& leaf_mfns() const { return leaves_.mfns; }
  // PFNs of the leaf frames. GUEST_MEMORY_UNREADABLE if one is not the guest's own.
  bool leaf_pfns(std::vector<uint64_t>* pfns, Fault* fault) const;
  // The 4096-byte shared info page; the guest may write to it.
  const uint8_t* shared_info() const { return shared_info_.data(); }

 private:
  GuestP2m() = default;
  P2mAnchor anchor() const;
  bool discover(Fault* fault);
  bool map_leaves(const P2mLeaves& leaves, ForeignPages* pages, Fault* fault);

  std::shared_ptr<Handles> xen_;
  std::shared_ptr<MachineMap> machine_;
  uint32_t domid_ = 0;
  uint64_t nr_pfns_cap_ = 0;
  ForeignPages shared_info_;
  P2mLeaves leaves_;
  ForeignPages leaf_pages_;
  P2mAnchor found_at_;  // of shared info, when the leaves were found
};

}  // namespace dormouse::xen
