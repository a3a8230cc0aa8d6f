#include "host/embedded/guest_kernel.h"

#include <cstring>

namespace dormouse::embedded {

namespace {
constexpr uint64_t kInvalidP2m = ~0ull;
constexpr uint64_t kSchedopShutdown = 2;
uint64_t start_info_field(const GuestText& text, uint64_t offset) {
  return linear(text.start_info_pfn) + offset;
}
}  // namespace

bool GuestKernel::wrong(const char* what) {
  dom_.guest_shutdown(kCrash, std::string("guest kernel: ") + what);
  return false;
}

bool GuestKernel::p2m(uint64_t pfn, uint64_t* mfn) { return cpu_.load(kP2mBase + pfn * 8, mfn); }

bool GuestKernel::ring_field(uint64_t offset, bool to_pfn) {
  const uint64_t address = start_info_field(*dom_.guest, offset);
  uint64_t value;
  if (!cpu_.load(address, &value)) return false;
  if (to_pfn) {
    if (value >= dom_.machine.frames()) return wrong("start info holds no machine frame");
    value = dom_.machine.m2p(value);
  } else if (value >= dom_.nr_pfns || !p2m(value, &value)) {
    return wrong("start info holds no page number");
  }
  return cpu_.store(address, value);
}

bool GuestKernel::rings_to_pfns() {
  return ring_field(offsetof(StartInfo, store_mfn), true) &&
         ring_field(offsetof(StartInfo, console_mfn), true);
}

bool GuestKernel::rings_to_mfns() {
  return ring_field(offsetof(StartInfo, store_mfn), false) &&
         ring_field(offsetof(StartInfo, console_mfn), false);
}

// Guests build the three-level tree only where start info does not say that tools read the list.
bool GuestKernel::uses_tree(bool* uses) {
  uint64_t flags;
  if (!cpu_.load(start_info_field(*dom_.guest, offsetof(StartInfo, flags)), &flags)) return false;
  *uses = (flags & kSifVirtP2m4Tools) == 0;
  return true;
}

// The tree's inner pages hold MFNs that nobody translates: they do not travel.
bool GuestKernel::drop_tree() {
  bool uses;
  if (!uses_tree(&uses) || !uses) return uses_tree(&uses);
  for (uint64_t i = 0; i < dom_.guest->tree_pages; i++) {
    uint64_t* page = cpu_.store_page(linear(dom_.guest->tree_pfn + i));
    if (!page) return false;
    std::memset(page, 0, kPageSize);
  }
  dom_.shared_info().frame_list_list = 0;
  return true;
}

bool GuestKernel::build_tree() {
  const GuestText& text = *dom_.guest;
  bool uses;
  if (!uses_tree(&uses)) return false;
  if (!uses) {
    dom_.shared_info().frame_list_list = ~0ull;
    return true;
  }
  uint64_t mfn;
  for (uint64_t leaf = 0; leaf < text.p2m_pages; leaf++) {
    if (!p2m(text.p2m_pfn + leaf, &mfn)) return false;
    if (!cpu_.store(linear(text.tree_pfn + 1 + leaf / 512) + leaf % 512 * 8, mfn)) return false;
  }
  for (uint64_t mid = 0; mid + 1 < text.tree_pages; mid++) {
    if (!p2m(text.tree_pfn + 1 + mid, &mfn)) return false;
    if (!cpu_.store(linear(text.tree_pfn) + mid * 8, mfn)) return false;
  }
  if (!p2m(text.tree_pfn, &mfn)) return false;
  dom_.shared_info().frame_list_list = mfn;
  return true;
}

bool GuestKernel::enter_suspend_point() {
  if (!dom_.guest || dom_.shutdown_reason >= 0) return false;
  cpu_.sync_tlb();
  if (!rings_to_pfns() || !drop_tree()) return false;
  UserRegs& regs = cpu_.regs();
  was_in_hypercall_ = regs.rip == kRipSuspended;
  regs.rip = kRipSuspended;
  regs.rax = 0;
  regs.rdi = kSchedopShutdown;
  regs.rsi = linear(dom_.guest->start_info_pfn);
  regs.rdx = dom_.mfn(dom_.guest->start_info_pfn);
  return true;
}

bool GuestKernel::swap_held_rings(Domain& dom, bool to_pfns) {
  const uint64_t mfn = dom.vcpus[0]->context.regs.rdx;
  if (dom.guest || dom.type != DomainType::pv || !dom.machine.owned_by(mfn, dom.domid))
    return false;
  if (std::memcmp(dom.machine.page(mfn), kStartInfoMagic, sizeof kStartInfoMagic - 1) != 0)
    return false;
  dom.before_write(mfn);
  auto* info = reinterpret_cast<StartInfo*>(dom.machine.page(mfn));
  for (uint64_t* ring : {&info->store_mfn, &info->console_mfn}) {
    if (to_pfns && dom.machine.owned_by(*ring, dom.domid))
      *ring = dom.machine.m2p(*ring);
    else if (!to_pfns && dom.has_frame(*ring))
      *ring = dom.mfn(*ring);
  }
  return true;
}

void GuestKernel::leave_suspend_point() {
  cpu_.sync_tlb();
  if (!rings_to_mfns() || !build_tree()) return;
  cpu_.regs().rip = was_in_hypercall_ ? kRipSuspended : kRipProgram;
  if (!was_in_hypercall_) cpu_.regs().rax = 1;
}

void GuestKernel::go_on_in_place() {
  cpu_.sync_tlb();
  if (!build_tree()) return;
  cpu_.regs().rip = kRipProgram;
  cpu_.regs().rax = 1;
}

bool GuestKernel::check_start_info() {
  const GuestText& text = *dom_.guest;
  uint64_t mfn;
  if (!p2m(text.start_info_pfn, &mfn)) return false;
  if (cpu_.regs().rdx != mfn) return wrong("rdx is not the start info frame");
  const uint64_t* page = cpu_.load_page(linear(text.start_info_pfn));
  if (!page) return false;
  StartInfo info;
  std::memcpy(&info, page, sizeof info);
  if (std::strncmp(info.magic, kStartInfoMagic, sizeof kStartInfoMagic - 1) != 0)
    return wrong("start info has no magic");
  if (info.nr_pages != text.nr_pfns) return wrong("start info has a wrong nr_pages");
  if (info.shared_info != dom_.shared_info_mfn << 12)
    return wrong("start info names a wrong shared info frame");
  uint64_t store, console;
  if (!p2m(text.store_pfn, &store) || !p2m(text.console_pfn, &console)) return false;
  if (info.store_mfn != store) return wrong("start info names a wrong store ring");
  if (info.console_mfn != console) return wrong("start info names a wrong console ring");
  if (cpu_.context.gdt_ents && cpu_.context.gdt_frames[0] != dom_.mfn(text.gdt_pfn))
    return wrong("the GDT is in a wrong frame");
  return true;
}

// The guest's list must say of each page what the hypervisor says.
bool GuestKernel::check_p2m() {
  for (uint64_t pfn = 0; pfn < dom_.nr_pfns; pfn++) {
    uint64_t listed;
    if (!p2m(pfn, &listed)) return false;
    if (listed != (dom_.has_frame(pfn) ? dom_.mfn(pfn) : kInvalidP2m))
      return wrong("the p2m list holds a wrong frame");
  }
  return true;
}

void GuestKernel::start_in_new_domain() {
  cpu_.sync_tlb();
  if (!check_start_info() || !check_p2m()) return;
  SharedInfo& info = dom_.shared_info();
  info.p2m_generation++;
  info.max_pfn = dom_.nr_pfns;
  info.p2m_cr3 = cpu_.context.ctrlreg[3];
  info.p2m_vaddr = kP2mBase;
  if (!build_tree()) return;
  info.p2m_generation++;
  cpu_.regs().rip = kRipProgram;
}

}  // namespace dormouse::embedded
