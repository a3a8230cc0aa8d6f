#include "host/embedded/hypercalls.h"

#include "host/embedded/page_types.h"

namespace dormouse::embedded::hypercall {

bool mmu_update(Vcpu& vcpu, uint64_t table_mfn, uint64_t index, uint64_t pte) {
  Domain& dom = vcpu.domain;
  {
    std::lock_guard<std::mutex> lock(dom.mmu);
    Fault refused;
    if (!PageTypes(dom).update(table_mfn, index, pte, &refused)) return false;
    dom.tlb_generation++;
  }
  vcpu.sync_tlb();
  return true;
}

bool pin(Vcpu& vcpu, uint64_t mfn, int level) {
  std::lock_guard<std::mutex> lock(vcpu.domain.mmu);
  Fault refused;
  return PageTypes(vcpu.domain).pin(mfn, level, &refused);
}

bool unpin(Vcpu& vcpu, uint64_t mfn) {
  std::lock_guard<std::mutex> lock(vcpu.domain.mmu);
  return PageTypes(vcpu.domain).unpin(mfn);
}

bool decrease_reservation(Vcpu& vcpu, uint64_t mfn) {
  Domain& dom = vcpu.domain;
  {
    std::lock_guard<std::mutex> lock(dom.mmu);
    if (!dom.machine.owned_by(mfn, dom.domid)) return false;
    const Frame& frame = dom.machine.frame(mfn);
    const uint64_t pfn = dom.machine.m2p(mfn);
    if (frame.refs || frame.type_count || !dom.has_frame(pfn) || dom.mfn(pfn) != mfn) return false;
    dom.detach_frame(pfn);
  }
  vcpu.sync_tlb();
  return true;
}

bool populate(Vcpu& vcpu, uint64_t pfn, uint64_t* mfn) {
  Domain& dom = vcpu.domain;
  std::lock_guard<std::mutex> lock(dom.mmu);
  dom.reclaim();
  if (pfn >= dom.nr_pfns || dom.has_frame(pfn) || dom.frames_owned() >= dom.max_pages) return false;
  uint32_t frame;
  Fault none;
  if (!dom.machine.allocate(dom.domid, 1, &frame, &none)) return false;
  dom.attach_frame(pfn, frame);
  *mfn = frame;
  return true;
}

}  // namespace dormouse::embedded::hypercall
