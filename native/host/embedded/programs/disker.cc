// disker: reads and writes its disks, several requests at a time, and remembers of each block what
// it wrote last. What it reads must be that: a disk that is older or newer than memory brings the
// domain down. Between requests it writes to memory.
//
// Its share of the heap: page 0 holds a slot for each request that may be under way, pages 1..8 the
// generation of each block, from page 16 on come the slots' own pages, then what it writes to.
//
// A slot has extents of its own on the disks and waits for its last request before the next one, so
// no two requests meet, and what a step finds depends on the steps before it alone. The last step
// waits for all, and vCPU 0's closes the disks.
#include "host/embedded/block_frontend.h"
#include "host/embedded/programs/programs.h"

namespace dormouse::embedded {

namespace {

constexpr uint64_t kMostSlots = 8, kExtentBlocks = BlockFrontend::kMaxSegments;
constexpr uint64_t kFirstTablePage = 1, kTableEntries = 8 * 512;
constexpr uint64_t kFirstBuffer = 16;
constexpr uint64_t kBlockMagic = 0x6b6c62656d726f64ull;

struct Slot {
  uint64_t busy, id, operation, disk, block, pages, generation, done;
};
static_assert(sizeof(Slot) * kMostSlots <= 4096);

struct Disker {
  Vcpu& cpu;
  const GuestText& text;
  const uint64_t heap;
  const uint64_t slots;

  Disker(Vcpu& vcpu, const GuestText& guest)
      : cpu(vcpu),
        text(guest),
        heap(guest.heap_of(vcpu.id)),
        slots(kRingEntries / guest.vcpus < kMostSlots ? kRingEntries / guest.vcpus : kMostSlots) {}

  uint64_t& step() { return cpu.regs().r15; }
  Slot* slot_page() { return reinterpret_cast<Slot*>(cpu.store_page(linear(heap))); }
  uint64_t buffer(uint64_t slot, uint64_t page) const {
    return heap + kFirstBuffer + slot * kExtentBlocks + page;
  }
  // Blocks of a disk that this vCPU works on, as far as it can remember them.
  uint64_t own_blocks(uint64_t disk) {
    const uint64_t blocks = BlockFrontend(cpu, text, uint32_t(disk)).sectors() / kPageSectors;
    const uint64_t most = kTableEntries / text.disks;
    const uint64_t own = blocks / text.vcpus < most ? blocks / text.vcpus : most;
    return own / (kExtentBlocks * slots) * (kExtentBlocks * slots);
  }
  uint64_t table_address(uint64_t disk, uint64_t block) const {
    const uint64_t entry = disk * (kTableEntries / text.disks) + block;
    return linear(heap + kFirstTablePage) + entry * 8;
  }
  uint64_t magic(uint64_t disk, uint64_t block) const {
    return kBlockMagic ^ mix(text.seed << 40 ^ uint64_t(cpu.id) << 36 ^ disk << 32 ^ block);
  }
  uint64_t word(uint64_t disk, uint64_t block, uint64_t generation, uint64_t i) const {
    return i == 0   ? magic(disk, block)
           : i == 1 ? generation
                    : mix(magic(disk, block) + generation) + i;
  }
  bool bad(const char* what, uint64_t block) const { return cpu.fault(what, block); }

  bool fill(const Slot& slot, uint64_t index) {
    for (uint64_t k = 0; k < slot.pages; k++) {
      uint64_t* words = cpu.store_page(linear(buffer(index, k)));
      if (!words) return false;
      for (uint64_t i = 0; i < 512; i++)
        words[i] = word(slot.disk, slot.block + k, slot.generation, i);
    }
    return true;
  }

  // A block that was never written holds what it held at first, but nothing of this guest.
  bool check_block(const Slot& slot, uint64_t index, uint64_t k) {
    const uint64_t block = slot.block + k;
    uint64_t expected;
    if (!cpu.load(table_address(slot.disk, block), &expected)) return false;
    const uint64_t* words = cpu.load_page(linear(buffer(index, k)));
    if (!words) return false;
    const bool own = words[0] == magic(slot.disk, block);
    if (own && words[1] > expected) return bad("BAD: the disk is newer than memory, block", block);
    if (own && words[1] < expected) return bad("BAD: the disk is older than memory, block", block);
    for (uint64_t i = 0; expected != 0 && i < 512; i++)
      if (words[i] != word(slot.disk, block, expected, i))
        return bad("BAD: the disk lost a write, block", block);
    uint64_t& sum = cpu.regs().rbx;
    for (uint64_t i = 0; i < 512; i += 64) sum = mix(sum ^ words[i]);
    return true;
  }

  bool settle(const Slot& slot, uint64_t index, int16_t status) {
    if (status != kBlkOkay) return bad("BAD: the disk failed, block", slot.block);
    for (uint64_t k = 0; k < slot.pages; k++) {
      if (slot.operation == kBlkRead && !check_block(slot, index, k)) return false;
      if (slot.operation == kBlkWrite &&
          !cpu.store(table_address(slot.disk, slot.block + k), slot.generation))
        return false;
    }
    return true;
  }

  // Waits for the request of a slot; go_on once it has none.
  Outcome free_slot(uint64_t index) {
    const auto* seen = reinterpret_cast<const Slot*>(cpu.load_page(linear(heap)));
    if (!seen) return Outcome::end;
    const Slot slot = seen[index];
    if (!slot.busy) return Outcome::go_on;
    if (slot.disk >= text.disks || slot.pages > kExtentBlocks) {
      cpu.fault("a slot holds no request", index);
      return Outcome::end;
    }
    int16_t status;
    if (!BlockFrontend(cpu, text, uint32_t(slot.disk)).answered(uint32_t(slot.id), &status))
      return cpu.domain.shutdown_reason >= 0 ? Outcome::end : Outcome::wait;
    if (!settle(slot, index, status)) return Outcome::end;
    Slot* page = slot_page();
    if (!page) return Outcome::end;
    page[index].busy = page[index].id = 0;  // which id it had is a matter of chance
    return Outcome::go_on;
  }

  Slot choose(uint64_t index, uint64_t random) {
    Slot slot{};
    slot.disk = random % text.disks;
    const uint64_t blocks = own_blocks(slot.disk);
    const uint64_t extents = blocks / (kExtentBlocks * slots);
    if (extents == 0) return slot;
    const uint64_t extent = (random >> 16) % extents * slots + index;
    const uint64_t first = random >> 8 & (kExtentBlocks - 1);
    slot.pages = 1 + (random >> 10) % (kExtentBlocks - first);
    slot.block = extent * kExtentBlocks + first;
    const bool read_only = text.disks_read_only >> slot.disk & 1;
    slot.operation = (random >> 48) % 8 < 3 || read_only ? kBlkRead : kBlkWrite;
    if ((random >> 48) % 64 == 63) {
      slot.operation = kBlkFlush;
      slot.pages = 0;
    }
    slot.generation = step() + 1;
    return slot;
  }

  bool submit(uint64_t index, Slot slot) {
    if (slot.operation == kBlkWrite && !fill(slot, index)) return false;
    const uint64_t base = own_blocks(slot.disk) * cpu.id;
    BlockFrontend::Wanted wanted{};
    wanted.operation = BlkOperation(slot.operation);
    wanted.sector = slot.pages ? (base + slot.block) * kPageSectors : 0;
    wanted.pages = uint32_t(slot.pages);
    for (uint64_t k = 0; k < slot.pages; k++) wanted.pfns[k] = buffer(index, k);
    uint32_t id;
    {
      BlockFrontend front(cpu, text, uint32_t(slot.disk));
      if (!front.submit(wanted, &id)) return cpu.fault("the ring of its disk is full", slot.disk);
    }
    slot.busy = 1;
    slot.id = id;
    Slot* page = slot_page();
    if (!page) return false;
    page[index] = slot;
    return true;
  }

  bool touch(uint64_t random) {
    const uint64_t first = kFirstBuffer + kMostSlots * kExtentBlocks;
    const uint64_t page = heap + first + random % (text.heap_share() - first);
    return cpu.store(linear(page) + (random >> 32 & 511) * 8, cpu.regs().rbx ^ random);
  }

  Outcome work() {
    const uint64_t random = draw(cpu, text);
    const uint64_t index = step() % slots;
    const Outcome free = free_slot(index);
    if (free != Outcome::go_on) return free;
    const Slot slot = choose(index, mix(random));
    const bool any = slot.pages || slot.operation == kBlkFlush;
    if (any && !submit(index, slot)) return Outcome::end;
    return touch(mix(random + 1)) ? Outcome::go_on : Outcome::end;
  }

  Outcome finish() {
    for (uint64_t index = 0; index < slots; index++) {
      const Outcome free = free_slot(index);
      if (free != Outcome::go_on) return free;
    }
    if (cpu.id != 0) return Outcome::go_on;
    for (const auto& other : cpu.domain.vcpus)
      if (other->id != 0 && other->steps.load(std::memory_order_acquire) < text.steps)
        return Outcome::wait;
    for (uint32_t disk = 0; disk < text.disks; disk++)
      if (!BlockFrontend(cpu, text, disk).close())
        return cpu.domain.shutdown_reason >= 0 ? Outcome::end : Outcome::wait;
    return Outcome::go_on;
  }
};

}  // namespace

Outcome disker_step(Vcpu& vcpu, const GuestText& text) {
  if (text.disks == 0) return Outcome::block;
  Disker disker(vcpu, text);
  return text.steps && vcpu.regs().r15 + 1 == text.steps ? disker.finish() : disker.work();
}

}  // namespace dormouse::embedded
