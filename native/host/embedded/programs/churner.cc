// churner: builds and tears down page tables, pins and unpins them, reads and writes memory through
// them, and balloons pages out and in, keeping its p2m list right.
//
// Its share of the heap: page 0 holds its state, pages 8..15 become L1 tables of its window, the
// first half of the rest is data that the window maps, the second half is ballooned.
#include "host/embedded/hypercalls.h"
#include "host/embedded/programs/programs.h"

namespace dormouse::embedded {

namespace {

constexpr uint64_t kTables = 8, kFirstTable = 8, kFirstData = 16;
constexpr uint64_t kMapped = 32;     // entries filled in each table
constexpr uint64_t kBallooned = 64;  // most pages out at once: one word of state
constexpr uint64_t kFlags = kPteNoExecute | 0x65;
constexpr uint64_t kInvalidP2m = ~0ull;
enum TableState : uint64_t { kNone = 0, kHooked = 1, kPinned = 2 };

struct Churner {
  Vcpu& cpu;
  const GuestText& text;
  const uint64_t heap;
  const uint64_t half;

  Churner(Vcpu& vcpu, const GuestText& guest)
      : cpu(vcpu),
        text(guest),
        heap(guest.heap_of(vcpu.id)),
        half((guest.heap_share() - kFirstData) / 2) {}

  uint64_t state_address(uint64_t word) const { return linear(heap) + word * 8; }
  uint64_t table_pfn(uint64_t table) const { return heap + kFirstTable + table; }
  uint64_t window(uint64_t table, uint64_t i) const {
    return kWindowBase + (uint64_t(cpu.id) << 30) + (table << 21) + (i << 12);
  }
  bool refused(const char* call) const { return cpu.fault(call, text.seed); }

  bool p2m(uint64_t pfn, uint64_t* mfn) { return cpu.load(kP2mBase + pfn * 8, mfn); }

  // The entry that the linear mapping has for a page.
  bool map_linear(uint64_t pfn, uint64_t pte) {
    uint64_t l1;
    if (!p2m(text.l1_pfn + pfn / 512, &l1)) return false;
    return hypercall::mmu_update(cpu, l1, pfn % 512, pte) || refused("mmu_update refused");
  }

  bool hook(uint64_t table, uint64_t pte) {
    uint64_t l2;
    if (!p2m(text.window_l2_pfn + cpu.id, &l2)) return false;
    return hypercall::mmu_update(cpu, l2, table, pte) || refused("mmu_update of the L2 refused");
  }

  // A data page and how entry i of a table maps it.
  bool entry(uint64_t random, uint64_t* pte) {
    uint64_t mfn;
    if (!p2m(heap + kFirstData + random % half, &mfn)) return false;
    *pte = mfn << 12 | kFlags | kPteWritable;
    return true;
  }

  bool build(uint64_t table, uint64_t random) {
    const uint64_t pfn = table_pfn(table);
    uint64_t mfn, pte;
    if (!p2m(pfn, &mfn)) return false;
    for (uint64_t i = 0; i < kMapped; i++)
      if (!entry(mix(random + i), &pte) || !cpu.store(linear(pfn) + i * 8, pte)) return false;
    if (!map_linear(pfn, mfn << 12 | kFlags)) return false;
    const bool pinned = random & 1;
    if (pinned && !hypercall::pin(cpu, mfn, 1)) return refused("pin refused");
    if (!hook(table, mfn << 12 | 0x67)) return false;
    return cpu.store(state_address(table), kHooked | (pinned ? uint64_t(kPinned) : 0));
  }

  bool tear_down(uint64_t table, uint64_t state) {
    const uint64_t pfn = table_pfn(table);
    uint64_t mfn;
    if (!p2m(pfn, &mfn) || !hook(table, 0)) return false;
    if ((state & kPinned) && !hypercall::unpin(cpu, mfn)) return refused("unpin refused");
    if (!map_linear(pfn, mfn << 12 | kFlags | kPteWritable)) return false;
    for (uint64_t i = 0; i < kMapped; i++)
      if (!cpu.store(linear(pfn) + i * 8, 0)) return false;
    return cpu.store(state_address(table), kNone);
  }

  bool remap(uint64_t table, uint64_t random) {
    uint64_t mfn, pte;
    if (!p2m(table_pfn(table), &mfn) || !entry(mix(random), &pte)) return false;
    return hypercall::mmu_update(cpu, mfn, random % kMapped, pte) || refused("remap refused");
  }

  bool use(uint64_t table, uint64_t random) {
    const uint64_t address = window(table, random % kMapped) + (random >> 16 & 511) * 8;
    uint64_t value;
    if (!cpu.load(address, &value)) return false;
    uint64_t& sum = cpu.regs().rbx;
    sum = mix(sum ^ value ^ random);
    return cpu.store(address, sum);
  }

  // Gives a page back, or takes a fresh one for it.
  bool balloon(uint64_t random) {
    const uint64_t span = half < kBallooned ? half : kBallooned;
    const uint64_t bit = random % span;
    const uint64_t pfn = heap + kFirstData + half + bit;
    uint64_t out, mfn;
    if (!cpu.load(state_address(kTables), &out)) return false;
    if (out >> bit & 1) {
      if (!hypercall::populate(cpu, pfn, &mfn)) return true;  // the machine is full: another time
      if (!cpu.store(kP2mBase + pfn * 8, mfn)) return false;
      if (!map_linear(pfn, mfn << 12 | kFlags | kPteWritable)) return false;
      if (!cpu.store(linear(pfn) + (random >> 16 & 511) * 8, random)) return false;
    } else {
      uint64_t value;
      if (!cpu.load(linear(pfn) + (random >> 16 & 511) * 8, &value)) return false;
      cpu.regs().rbx = mix(cpu.regs().rbx ^ value);
      if (!p2m(pfn, &mfn) || !map_linear(pfn, 0)) return false;
      if (!hypercall::decrease_reservation(cpu, mfn)) return refused("decrease refused");
      if (!cpu.store(kP2mBase + pfn * 8, kInvalidP2m)) return false;
    }
    return cpu.store(state_address(kTables), out ^ 1ull << bit);
  }

  bool step() {
    const uint64_t random = draw(cpu, text);
    const uint64_t table = random >> 4 & (kTables - 1);
    uint64_t state;
    if (!cpu.load(state_address(table), &state)) return false;
    const uint64_t action = random & 15;
    if (action < 3) return balloon(random >> 8);
    if (state == kNone) return build(table, random >> 8);
    if (action < 5) return tear_down(table, state);
    return action < 8 ? remap(table, random >> 8) : use(table, random >> 8);
  }
};

}  // namespace

Outcome churner_step(Vcpu& vcpu, const GuestText& text) {
  return Churner(vcpu, text).step() ? Outcome::go_on : Outcome::end;
}

}  // namespace dormouse::embedded
