// A domain that stands still, made ready to be filled anew in place: what its frames were used for
// is forgotten, its vCPUs' threads are ended, and it is as one that is being built, except that it
// keeps its id, its frames, its ports and its pauses.
#include <string>
#include <utility>

#include "host/embedded/block_frontend.h"
#include "host/embedded/domain.h"
#include "host/embedded/guest_kernel.h"
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
    frame.lifted = false;
    frame.type_count = frame.refs = 0;
  }
  lifted.clear();
}

bool Domain::may_rewrite(Fault* fault) const {
  if (building && !rewriting)
    return fault->raise("DOMAIN_WRONG_STATE", "the domain is still being built");
  if (pause_count == 0) return fault->raise("DOMAIN_WRONG_STATE", "the domain is not paused");
  if (cow_epoch) return fault->raise("DOMAIN_WRONG_STATE", "the domain has a snapshot");
  for (Backend* backend : backends())
    if (backend->state() != kXenbusClosed)
      return fault->raise("DOMAIN_WRONG_STATE", "the domain's devices are at work");
  return true;
}

void Domain::begin_to_rewrite() {
  for (Backend* backend : backends())
    backend->end();  // also files that a finish in vain has opened
  end_vcpus();
  forget_shutdown();
  building = rewriting = true;
  guest.reset();
  tlb_generation++;
  write_generation++;
}

// What the tools write here passes the log by.
void Domain::log_all() {
  if (!dirty_on) return;
  for (uint64_t word = 0; word < (nr_pfns + 63) / 64; word++) dirty_words[word] = ~0ull;
  if (nr_pfns & 63) dirty_words[nr_pfns >> 6] = (1ull << (nr_pfns & 63)) - 1;
}

bool Domain::begin_rewrite(Fault* fault) {
  if (!may_rewrite(fault)) return false;
  begin_to_rewrite();
  std::lock_guard<std::mutex> lock(mmu);
  forget_types();
  reclaim();
  log_all();
  return true;
}

bool Domain::check_part(const RewritePart& part, Fault* fault) const {
  if (rewriting)
    return fault->raise("DOMAIN_WRONG_STATE", "a half rewritten domain is rewritten whole");
  if (part.geometry.nr_pfns != nr_pfns)
    return fault->raise("DOMAIN_WRONG_STATE", "the domain has another pfn space");
  for (const auto* runs : {&part.gained, &part.lost})
    for (const PfnRun& run : *runs)
      for (uint64_t pfn = run.first; pfn < run.first + run.count; pfn++) {
        fault->pfn = pfn;
        if (pfn >= nr_pfns || has_frame(pfn) != (runs == &part.lost))
          return fault->raise("DOMAIN_WRONG_STATE", "the pfn's frame is not as it was said to be");
      }
  for (const auto* pfns : {&part.tables, &part.unpinned})
    for (const uint64_t pfn : *pfns) {
      fault->pfn = pfn;
      if (!has_frame(pfn)) return fault->raise("DOMAIN_WRONG_STATE", "the table has no frame");
    }
  fault->pfn = Fault::kNowhere;
  return true;
}

bool Domain::begin_rewrite(RewritePart part, Fault* fault) {
  if (!may_rewrite(fault) || !check_part(part, fault)) return false;
  uint64_t gained = 0, lost = 0;
  for (const PfnRun& run : part.gained) gained += run.count;
  for (const PfnRun& run : part.lost) lost += run.count;
  if (owned - lost + gained > max_pages)
    return fault->raise("NO_MEMORY", "the domain may own " + std::to_string(max_pages) + " pages");
  // What goes is not there to be taken: after this nothing fails.
  std::vector<uint32_t> mfns(gained);
  if (!machine.allocate(domid, gained, mfns.data(), fault)) return false;
  begin_to_rewrite();
  std::lock_guard<std::mutex> lock(mmu);
  PageTypes types(*this);
  for (const uint64_t pfn : part.tables)
    if (types.lift(mfn(pfn))) lifted.push_back(mfn(pfn));
  for (const uint64_t pfn : part.unpinned) types.unpin(mfn(pfn));
  for (const PfnRun& run : part.lost)
    for (uint64_t pfn = run.first; pfn < run.first + run.count; pfn++) detach_frame(pfn);
  size_t used = 0;
  for (const PfnRun& run : part.gained)
    for (uint64_t pfn = run.first; pfn < run.first + run.count; pfn++)
      attach_frame(pfn, mfns[used++]);
  built_geometry = std::move(part.geometry);
  reclaim();
  log_all();
  return true;
}

bool Domain::take_tables(const std::vector<PinnedTable>& pins, Fault* fault) {
  std::lock_guard<std::mutex> lock(mmu);
  if (!rewriting) return fault->raise("DOMAIN_WRONG_STATE", "the domain is not being rewritten");
  PageTypes types(*this);
  for (const uint64_t mfn : lifted)
    if (machine.owned_by(mfn, domid) && !types.land(mfn, fault)) return false;
  for (const PinnedTable& table : pins) {
    fault->pfn = table.pfn;
    if (!has_frame(table.pfn))
      return fault->raise("PAGE_TABLE_INVALID", "the page to pin has no frame");
    if (!types.pin(mfn(table.pfn), table.level, fault)) return false;
  }
  lifted.clear();
  fault->pfn = Fault::kNowhere;
  return true;
}

bool Domain::finish_in_place(Fault* fault) {
  if (!rewriting) return fault->raise("DOMAIN_WRONG_STATE", "the domain is not being rewritten");
  if (!open_disks(fault) || !finish(fault)) return false;
  if (guest && !has_devices_of(*guest, fault)) {
    building = rewriting = true;
    guest.reset();
    return false;
  }
  if (guest && vcpus[0]->regs().rip == kRipSuspended) GuestKernel(*this).go_on_in_place();
  devices_connected = guest && any_frontend_serves();
  return attach_devices(fault);
}

}  // namespace dormouse::embedded
