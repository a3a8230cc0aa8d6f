#include "host/embedded/vcpu.h"

#include <cstdio>

#include "host/embedded/domain.h"

namespace dormouse::embedded {

Vcpu::Vcpu(Domain& dom, uint32_t number) : domain(dom), id(number) {}

bool Vcpu::walk(uint64_t address, uint64_t* mfn, bool* writable) const {
  const Machine& machine = domain.machine;
  uint64_t table = cr3_mfn();
  *writable = true;
  for (int level = 4; level >= 1; level--) {
    if (!machine.owned_by(table, domain.domid)) return false;
    const uint64_t index = address >> (12 + 9 * (level - 1)) & 511;
    const uint64_t pte = __atomic_load_n(machine.words(table) + index, __ATOMIC_RELAXED);
    if (!(pte & kPtePresent) || (level > 1 && (pte & kPteSuper))) return false;
    *writable &= (pte & kPteWritable) != 0;
    table = mfn_of_pte(pte);
  }
  *mfn = table;
  return machine.owned_by(table, domain.domid);
}

bool Vcpu::fault(const char* what, uint64_t address) {
  char text[96];
  std::snprintf(text, sizeof text, "vCPU %u: %s at %#llx", id, what,
                static_cast<unsigned long long>(address));
  domain.guest_shutdown(kCrash, text);
  return false;
}

void Vcpu::sync_tlb() {
  const uint64_t generation = domain.tlb_generation;
  if (generation == seen_tlb) return;
  tlb.flush();
  seen_tlb = generation;
}

const TlbEntry* Vcpu::translate(uint64_t address) {
  const uint64_t page = address >> 12;
  TlbEntry& entry = tlb.slot(page);
  if (__builtin_expect(entry.page == page, 1)) return &entry;
  uint64_t mfn;
  bool writable;
  if (!walk(address, &mfn, &writable)) {
    fault("page fault", address);
    return nullptr;
  }
  entry = TlbEntry{page, domain.machine.page(mfn), 0, uint32_t(mfn), writable};
  return &entry;
}

TlbEntry* Vcpu::translate_for_store(uint64_t address) {
  auto* entry = const_cast<TlbEntry*>(translate(address));
  const uint64_t generation = domain.write_generation.load(std::memory_order_relaxed);
  if (__builtin_expect(entry && entry->write_generation == generation, 1)) return entry;
  if (!entry) return nullptr;
  if (!entry->writable) {
    fault("store to a read-only page", address);
    return nullptr;
  }
  domain.before_write(entry->mfn);
  entry->write_generation = generation;
  return entry;
}

bool Vcpu::load(uint64_t address, uint64_t* value) {
  const TlbEntry* entry = translate(address);
  if (!entry) return false;
  *value = __atomic_load_n(reinterpret_cast<uint64_t*>(entry->data + (address & 0xff8)),
                           __ATOMIC_RELAXED);
  return true;
}

bool Vcpu::store(uint64_t address, uint64_t value) {
  TlbEntry* entry = translate_for_store(address);
  if (!entry) return false;
  __atomic_store_n(reinterpret_cast<uint64_t*>(entry->data + (address & 0xff8)), value,
                   __ATOMIC_RELAXED);
  return true;
}

const uint64_t* Vcpu::load_page(uint64_t address) {
  const TlbEntry* entry = translate(address);
  return entry ? reinterpret_cast<uint64_t*>(entry->data) : nullptr;
}

uint64_t* Vcpu::store_page(uint64_t address) {
  TlbEntry* entry = translate_for_store(address);
  return entry ? reinterpret_cast<uint64_t*>(entry->data) : nullptr;
}

}  // namespace dormouse::embedded
