#include "host/embedded/domain_builder.h"

#include <cstring>

#include "host/embedded/mix.h"
#include "host/embedded/page_types.h"

namespace dormouse::embedded {

namespace {

constexpr uint64_t kTableFlags = 0x67;  // present, writable, user, A, D
constexpr uint64_t kReadOnly = kPteNoExecute | 0x65;
constexpr uint64_t kReadWrite = kPteNoExecute | 0x67;
constexpr uint64_t kSlotSpan = 1ull << 39;  // what one L4 entry maps
constexpr uint64_t kBootReservedPages = 8;

uint64_t up(uint64_t n, uint64_t unit) { return (n + unit - 1) / unit; }

class DomainBuilder {
 public:
  DomainBuilder(Domain& domain, const GuestOptions& options) : dom_(domain), options_(options) {}

  bool build(Fault* fault);

 private:
  void lay_out();
  void write_kernel_pages();
  void write_drivers();
  void write_p2m();
  void write_tables();
  void write_content();
  void write_vcpus();
  uint64_t map_range(uint64_t l1_pfn, uint64_t l2_pfn, uint64_t l3_pfn, uint64_t pages);
  uint64_t* page(uint64_t pfn);
  uint64_t linear_flags(uint64_t pfn) const;

  Domain& dom_;
  const GuestOptions& options_;
  GuestText text_{};
  uint64_t l2_pfn_ = 0, l3_pfn_ = 0;  // of the linear mapping
  uint64_t p2m_l1_pfn_ = 0, p2m_l2_pfn_ = 0, p2m_l3_pfn_ = 0;
  uint64_t window_l3_pfn_ = 0;
  uint64_t table_end_ = 0;  // of the pages that are page tables
};

uint64_t* DomainBuilder::page(uint64_t pfn) {
  const uint64_t mfn = dom_.mfn(pfn);
  dom_.machine.touched(mfn).store(1, std::memory_order_relaxed);
  return dom_.machine.words(mfn);
}

void DomainBuilder::lay_out() {
  GuestText& t = text_;
  const uint64_t n = options_.pages;
  std::memcpy(t.magic, kGuestMagic, sizeof t.magic);
  t.program = options_.program;
  t.vcpus = uint32_t(dom_.vcpus.size());
  t.seed = options_.seed;
  t.steps = options_.steps;
  t.rate = options_.rate;
  t.working_set = options_.working_set;
  t.skew = options_.skew;
  t.crash_at = options_.crash_at;
  t.deaf = options_.deaf;
  t.nr_pfns = n;
  t.start_info_pfn = 1;
  t.store_pfn = 3;
  t.console_pfn = 4;
  t.gdt_pfn = 5;
  t.user_l4_pfn = 6;
  t.l4_pfn = 7;
  uint64_t next = kBootReservedPages;
  const auto take = [&](uint64_t count) {
    next += count;
    return next - count;
  };
  t.p2m_pages = up(n, 512);
  t.tree_pages = 1 + up(t.p2m_pages, 512);
  t.tree_pfn = take(t.tree_pages);
  t.p2m_pfn = take(t.p2m_pages);
  t.l1_pfn = take(up(n, 512));
  l2_pfn_ = take(up(n, 512 * 512));
  l3_pfn_ = take(1);
  p2m_l1_pfn_ = take(up(t.p2m_pages, 512));
  p2m_l2_pfn_ = take(up(t.p2m_pages, 512 * 512));
  p2m_l3_pfn_ = take(1);
  window_l3_pfn_ = take(1);
  t.window_l2_pfn = take(t.vcpus);
  table_end_ = next;
  t.disks = dom_.disks.size();
  for (uint64_t i = 0; i < t.disks; i++)
    if (!dom_.disks[i]->options().writable) t.disks_read_only |= 1ull << i;
  t.networks = dom_.networks.size();
  if (t.disks != 0) t.disk_pfn = take(2 * t.disks);
  if (t.disks != 0 || t.networks != 0) t.grant_pfn = take(kGrantPages);
  if (t.networks != 0) t.network_pfn = take(kNetworkPages * t.networks);
  t.heap_pfn = next;
  t.heap_pages = n > next ? n - next : 0;
}

void DomainBuilder::write_kernel_pages() {
  std::memcpy(page(kTextPfn), &text_, sizeof text_);
  StartInfo info{};
  std::memcpy(info.magic, kStartInfoMagic, sizeof kStartInfoMagic);
  info.nr_pages = text_.nr_pfns;
  info.shared_info = dom_.shared_info_mfn << 12;
  info.flags = kSifVirtP2m4Tools;
  info.store_mfn = dom_.mfn(text_.store_pfn);
  info.store_evtchn = options_.store_port;
  info.console_mfn = dom_.mfn(text_.console_pfn);
  info.console_evtchn = options_.console_port;
  info.pt_base = linear(text_.l4_pfn);
  info.nr_pt_frames = table_end_ - text_.l1_pfn + 2;
  info.mfn_list = kP2mBase;
  info.first_p2m_pfn = text_.p2m_pfn;
  info.nr_p2m_frames = text_.p2m_pages;
  std::memcpy(page(text_.start_info_pfn), &info, sizeof info);
  uint64_t* gdt = page(text_.gdt_pfn);
  gdt[1] = 0x00affb000000ffffull;  // flat code and data segments
  gdt[2] = 0x00cff3000000ffffull;
}

// The drivers of devices that are not met yet.
void DomainBuilder::write_drivers() {
  const auto write = [this](uint64_t pfn) {
    reinterpret_cast<uint32_t*>(page(pfn))[0] = kXenbusInitialising;
  };
  for (uint64_t i = 0; i < text_.disks; i++) write(text_.disk_pfn + 2 * i);
  for (uint64_t i = 0; i < text_.networks; i++) write(text_.network_pfn + kNetworkPages * i);
}

void DomainBuilder::write_p2m() {
  for (uint64_t leaf = 0; leaf < text_.p2m_pages; leaf++) {
    uint64_t* words = page(text_.p2m_pfn + leaf);
    for (uint64_t i = 0; i < 512; i++) {
      const uint64_t pfn = leaf * 512 + i;
      words[i] = pfn < text_.nr_pfns ? dom_.mfn(pfn) : ~0ull;
    }
  }
  SharedInfo& info = dom_.shared_info();
  info.max_pfn = text_.nr_pfns;
  info.frame_list_list = ~0ull;
  info.p2m_cr3 = dom_.mfn(text_.l4_pfn) << 12;
  info.p2m_vaddr = kP2mBase;
  info.p2m_generation = 2;
}

// Page tables and the GDT may not be writable.
uint64_t DomainBuilder::linear_flags(uint64_t pfn) const {
  const bool table = pfn >= text_.l1_pfn && pfn < table_end_;
  const bool fixed = pfn == text_.gdt_pfn || pfn == text_.user_l4_pfn || pfn == text_.l4_pfn;
  return table || fixed ? kReadOnly : kReadWrite;
}

// Links consecutive tables: L3 entries to the L2s, L2 entries to the L1s. Returns the L4 entry.
uint64_t DomainBuilder::map_range(uint64_t l1_pfn, uint64_t l2_pfn, uint64_t l3_pfn,
                                  uint64_t pages) {
  const uint64_t l1s = up(pages, 512);
  for (uint64_t i = 0; i < l1s; i++)
    page(l2_pfn + i / 512)[i % 512] = dom_.mfn(l1_pfn + i) << 12 | kTableFlags;
  for (uint64_t i = 0; i < up(l1s, 512); i++)
    page(l3_pfn)[i] = dom_.mfn(l2_pfn + i) << 12 | kTableFlags;
  return dom_.mfn(l3_pfn) << 12 | kTableFlags;
}

void DomainBuilder::write_tables() {
  for (uint64_t pfn = 0; pfn < text_.nr_pfns; pfn++)
    page(text_.l1_pfn + pfn / 512)[pfn % 512] = dom_.mfn(pfn) << 12 | linear_flags(pfn);
  for (uint64_t i = 0; i < text_.p2m_pages; i++)
    page(p2m_l1_pfn_ + i / 512)[i % 512] = dom_.mfn(text_.p2m_pfn + i) << 12 | kReadWrite;
  uint64_t* l4 = page(text_.l4_pfn);
  const auto slot = [](uint64_t address) { return address / kSlotSpan & 511; };
  l4[slot(kLinearBase)] = map_range(text_.l1_pfn, l2_pfn_, l3_pfn_, text_.nr_pfns);
  l4[slot(kP2mBase)] = map_range(p2m_l1_pfn_, p2m_l2_pfn_, p2m_l3_pfn_, text_.p2m_pages);
  for (uint32_t v = 0; v < text_.vcpus; v++)
    page(window_l3_pfn_)[v] = dom_.mfn(text_.window_l2_pfn + v) << 12 | kTableFlags;
  l4[slot(kWindowBase)] = dom_.mfn(window_l3_pfn_) << 12 | kTableFlags;
  page(text_.user_l4_pfn);
}

// Words that repeat as those of real memory do: half of a page comes from a few values.
void DomainBuilder::write_content() {
  // The first pages of each share are state that programs expect to be zero at boot.
  for (uint64_t i = 0; i < text_.heap_pages; i++) {
    const uint64_t random = mix(options_.seed << 32 ^ i);
    if (i % text_.heap_share() < 16 || random % 100 >= options_.fill) continue;
    const uint64_t mfn = dom_.mfn(text_.heap_pfn + i);
    uint64_t words[512];
    uint64_t word = random;
    for (uint64_t w = 0; w < 512; w += 2) {
      word = word * 6364136223846793005ull + 1442695040888963407ull;
      words[w] = word >> 16;
      words[w + 1] = random >> (w & 24);
    }
    dom_.machine.touched(mfn).store(1, std::memory_order_relaxed);
    dom_.machine.memory.fill_page(mfn, words);
  }
}

void DomainBuilder::write_vcpus() {
  for (const auto& vcpu : dom_.vcpus) {
    VcpuContext& c = vcpu->context;
    c.flags = kVgcfInKernel | kVgcfOnline;
    c.regs.rip = kRipProgram;
    c.regs.rsp = linear(text_.heap_of(vcpu->id));
    c.regs.cs = 0xe033;
    c.regs.ss = 0xe02b;
    c.regs.rflags = 0x202;
    c.regs.rbx = mix(options_.seed + vcpu->id);
    c.gdt_frames[0] = dom_.mfn(text_.gdt_pfn);
    c.gdt_ents = 512;
    c.kernel_ss = c.regs.ss;
    c.kernel_sp = c.regs.rsp;
    c.ctrlreg[0] = 0x8005003b;
    c.ctrlreg[1] = dom_.mfn(text_.user_l4_pfn) << 12;
    c.ctrlreg[3] = dom_.mfn(text_.l4_pfn) << 12;
    c.event_callback_eip = linear(kTextPfn) + 0xa00;
    c.failsafe_callback_eip = linear(kTextPfn) + 0xa40;
    c.syscall_callback_eip = linear(kTextPfn) + 0xa80;
    c.debugreg[6] = 0xffff0ff0;
    c.debugreg[7] = 0x400;
    vcpu->initialised = true;
  }
}

bool DomainBuilder::build(Fault* fault) {
  if (!dom_.building || dom_.nr_pfns || dom_.type != DomainType::pv)
    return fault->raise("DOMAIN_WRONG_STATE", "only an empty pv shell can be booted");
  lay_out();
  if (text_.heap_share() < kMinHeapShare)
    return fault->raise("NO_MEMORY", "the guest needs more pages than it was given");
  if (options_.pages > dom_.max_pages || options_.pages > dom_.machine.free_frames())
    return fault->raise("NO_MEMORY", "the guest's pages exceed what it or the machine may have");
  Geometry geometry{options_.pages, 8, {}, 0};
  for (uint64_t i = 0; i < text_.p2m_pages; i++) geometry.p2m_frames.push_back(text_.p2m_pfn + i);
  if (!dom_.set_geometry(std::move(geometry), fault)) return false;
  if (!dom_.populate({{0, options_.pages}}, fault)) return false;
  write_kernel_pages();
  write_drivers();
  write_p2m();
  write_tables();
  write_content();
  write_vcpus();
  {
    std::lock_guard<std::mutex> lock(dom_.mmu);
    PageTypes types(dom_);
    if (!types.pin(dom_.mfn(text_.l4_pfn), 4, fault)) return false;
    if (!types.pin(dom_.mfn(text_.user_l4_pfn), 4, fault)) return false;
  }
  if (!dom_.finish(fault)) return false;
  dom_.built_generation = ~0ull;  // this guest publishes its p2m itself, from the start
  return true;
}

}  // namespace

bool boot_guest(Domain& domain, const GuestOptions& options, Fault* fault) {
  return DomainBuilder(domain, options).build(fault);
}

}  // namespace dormouse::embedded
