// The toolstack's calls on a domain's run state.
#include <cstring>

#include "host/embedded/domain.h"
#include "host/embedded/guest_kernel.h"
#include "host/embedded/page_types.h"

namespace dormouse::embedded {

bool text_is_sound(const GuestText& text, uint64_t nr_pfns, uint32_t vcpus) {
  if (std::memcmp(text.magic, kGuestMagic, sizeof kGuestMagic) != 0) return false;
  if (text.program >= kPrograms || text.vcpus == 0 || text.vcpus != vcpus) return false;
  if (text.nr_pfns != nr_pfns || text.skew > 100) return false;
  const auto inside = [&](uint64_t first, uint64_t count) {
    return first < nr_pfns && count <= nr_pfns - first;
  };
  return inside(text.start_info_pfn, 1) && inside(text.store_pfn, 1) &&
         inside(text.console_pfn, 1) && inside(text.gdt_pfn, 1) && inside(text.l4_pfn, 1) &&
         inside(text.user_l4_pfn, 1) && inside(text.tree_pfn, text.tree_pages) &&
         inside(text.p2m_pfn, text.p2m_pages) && text.p2m_pages == (nr_pfns + 511) / 512 &&
         text.tree_pages == 1 + (text.p2m_pages + 511) / 512 &&
         inside(text.l1_pfn, (nr_pfns + 511) / 512) && inside(text.window_l2_pfn, vcpus) &&
         inside(text.heap_pfn, text.heap_pages) && text.heap_share() >= kMinHeapShare &&
         text.disks <= kMaxDisks && text.networks <= kMaxNetworks &&
         inside(text.disk_pfn, 2 * text.disks) &&
         inside(text.network_pfn, kNetworkPages * text.networks) &&
         (text.disks + text.networks == 0) == (text.grant_pfn == 0) &&
         inside(text.grant_pfn, kGrantPages);
}

bool Domain::recognise_guest() {
  if (guest) return true;
  if (type != DomainType::pv) return false;
  const uint64_t rip = vcpus[0]->regs().rip;
  uint64_t mfn;
  bool writable;
  if (rip != kRipProgram && rip != kRipSuspended) return false;
  if (!vcpus[0]->walk(rip, &mfn, &writable)) return false;
  GuestText text;
  std::memcpy(&text, machine.page(mfn), sizeof text);
  if (!text_is_sound(text, nr_pfns, uint32_t(vcpus.size()))) return false;
  for (const auto& vcpu : vcpus)
    if (!vcpu->initialised) return false;
  guest = text;
  return true;
}

bool Domain::set_vcpu(uint32_t id, const VcpuContext& context, Fault* fault) {
  std::lock_guard<std::mutex> lock(mmu);
  if (!building) return fault->raise("DOMAIN_WRONG_STATE", "the domain is complete already");
  if (type == DomainType::pv) {
    PageTypes types(*this);
    const uint64_t user = mfn_of_pte(context.ctrlreg[1]);
    if (!types.is_table(mfn_of_pte(context.ctrlreg[3]), 4))
      return fault->raise("PAGE_TABLE_INVALID", "cr3 names no validated top-level table");
    if (user && !types.is_table(user, 4))
      return fault->raise("PAGE_TABLE_INVALID", "cr1 names no validated top-level table");
    if (context.gdt_ents > 16 * 512)
      return fault->raise("RESTORE_FAILED", "the GDT has too many entries");
    for (uint64_t i = 0; i < (context.gdt_ents + 511) / 512; i++)
      if (!machine.owned_by(context.gdt_frames[i], domid))
        return fault->raise("RESTORE_FAILED", "the GDT is in a frame that is not the domain's");
  }
  Vcpu& vcpu = *vcpus[id];
  vcpu.context = context;
  vcpu.context.flags |= kVgcfOnline;
  vcpu.initialised = true;
  vcpu.steps = context.regs.r15;
  return true;
}

bool Domain::finish(Fault* fault) {
  if (!building) return fault->raise("DOMAIN_WRONG_STATE", "the domain is complete already");
  if (!vcpus[0]->initialised && type == DomainType::pv)
    return fault->raise("DOMAIN_WRONG_STATE", "vCPU 0 has no state");
  if (!rewriting) pause_count = 1;  // takes over the shell's stop request
  building = rewriting = devices_connected = false;
  if (type == DomainType::pv) built_generation = shared_info().p2m_generation;
  recognise_guest();
  return true;
}

void Domain::pause() {
  pause_count++;
  hold();
}

bool Domain::unpause(Fault* fault) {
  if (pause_count == 0) return fault->raise("DOMAIN_WRONG_STATE", "the domain is not paused");
  if (building && pause_count == 1)
    return fault->raise("DOMAIN_WRONG_STATE", "the domain is not complete");
  if (!guest && !building && pause_count == 1)
    return fault->raise("HOST_LACKS", "the embedded host runs its own guest programs only");
  if (pause_count == 1 && !started) {
    if (!connect_devices(fault)) return false;
    started = true;
    if (vcpus[0]->regs().rip == kRipSuspended) GuestKernel(*this).start_in_new_domain();
    for (const auto& vcpu : vcpus) vcpu->start();
  }
  pause_count--;
  release();
  if (wanted_shutdown >= 0) shutdown_request(wanted_shutdown);
  return true;
}

void Domain::shutdown_request(int reason) {
  wanted_shutdown = reason;
  if (building || held() || !guest || guest->deaf) return;
  if (reason == kSuspend) machine.on_event({domid, Event::kSuspendAck, -1});
  hold();
  wanted_shutdown = -1;
  const bool gone = shutdown_reason >= 0;  // it ended by itself meanwhile
  if (!gone && (reason != kSuspend || GuestKernel(*this).enter_suspend_point()))
    guest_shutdown(reason, "");
  release();
}

bool Domain::shutdown_cancel() {
  const bool was = wanted_shutdown >= 0;
  wanted_shutdown = -1;
  return was;
}

bool Domain::resume_in_place(Fault* fault) {
  {
    std::lock_guard<std::mutex> lock(shutdown_lock);
    if (shutdown_reason != kSuspend || shutdown_pending)
      return fault->raise("DOMAIN_WRONG_STATE", "the domain is not suspended");
    shutdown_reason = -1;
  }
  GuestKernel(*this).leave_suspend_point();
  release();
  if (wanted_shutdown >= 0) shutdown_request(wanted_shutdown);
  return true;
}

}  // namespace dormouse::embedded
