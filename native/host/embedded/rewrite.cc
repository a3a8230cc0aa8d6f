// A domain that stands still, made ready to be filled anew in place: what its frames were used for
// is forgotten, its vCPUs' threads are ended, and it is as one that is being built, except that it
// keeps its id, its frames, its ports and its pauses.
#include "host/embedded/domain.h"
#include "host/embedded/page_types.h"

namespace dormouse::embedded {

// Before the domain stood still for good it may have ended by itself: that is undone too.
void Domain::forget_shutdown() {
  std::lock_guard<std::mutex> lock(shutdown_lock);
  wanted_shutdown = -1;
  if (shutdown_reason < 0) return;
  shutdown_reason = -1;
  shutdown_pending = false;
  crash_text.clear();
  stop_requests--;
}

void Domain::end_vcpus() {
  stop_threads();
  exiting = false;
  started = false;
  for (const auto& vcpu : vcpus) {
    vcpu->state = Vcpu::kParked;
    vcpu->initialised = false;
    vcpu->context = {};
  }
}

void Domain::forget_types() {
  PageTypes types(*this);
  for (uint64_t pfn = 0; pfn < nr_pfns; pfn++)
    if (has_frame(pfn)) types.unpin(mfn(pfn));
  // What was planted into tables past validation was never counted, and leaves counts behind.
  for (uint64_t pfn = 0; pfn < nr_pfns; pfn++) {
    if (!has_frame(pfn)) continue;
    Frame& frame = machine.frame(mfn(pfn));
    if (frame.type_count != 0) set_entry(pfn, mfn(pfn), kRetyped);
    frame.type = kTypeNone;
    frame.type_count = frame.refs = 0;
  }
}

bool Domain::begin_rewrite(Fault* fault) {
  if (building && !rewriting)
    return fault->raise("DOMAIN_WRONG_STATE", "the domain is still being built");
  if (pause_count == 0) return fault->raise("DOMAIN_WRONG_STATE", "the domain is not paused");
  if (cow_epoch) return fault->raise("DOMAIN_WRONG_STATE", "the domain has a snapshot");
  end_vcpus();
  forget_shutdown();
  std::lock_guard<std::mutex> lock(mmu);
  building = rewriting = true;
  guest.reset();
  forget_types();
  tlb_generation++;
  write_generation++;
  reclaim();
  if (dirty_on)
    for (uint64_t pfn = 0; pfn < nr_pfns; pfn++) mark_dirty(pfn);
  return true;
}

}  // namespace dormouse::embedded
