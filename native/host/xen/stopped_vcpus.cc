#include "host/xen/stopped_vcpus.h"

#include <xen/hvm/save.h>

#include <cerrno>

namespace dormouse::xen {
namespace {

constexpr uint64_t kPaging = 1ull << 31, kFiveLevels = 1 << 12, kLongMode = 1 << 10;
constexpr uint64_t kPresent = 1, kLarge = 1 << 7, kFrame = 0x000ffffffffff000;

bool read_word(XenMemory& memory, uint64_t address, uint64_t* word) {
  uint64_t page[host::kPageSize / 8];
  const uint64_t pfn = address / host::kPageSize;
  Fault ignored;
  if (!memory.copy_out(&pfn, nullptr, 1, reinterpret_cast<uint8_t*>(page), &ignored)) return false;
  *word = page[address % host::kPageSize / 8];
  return true;
}

// A byte at an address of the vCPU's in 64-bit mode.
bool read_byte(XenMemory& memory, const hvm_hw_cpu& cpu, uint64_t address, uint8_t* byte) {
  uint64_t table = cpu.cr3 & kFrame;
  for (int level = cpu.cr4 & kFiveLevels ? 5 : 4; level >= 1; --level) {
    const int shift = 12 + 9 * (level - 1);
    uint64_t entry = 0;
    if (!read_word(memory, table + (address >> shift & 511) * 8, &entry)) return false;
    if (!(entry & kPresent)) return false;
    table = entry & kFrame;
    if (level > 3 || level == 1 || !(entry & kLarge)) continue;
    const uint64_t within = (1ull << shift) - 1;
    table = (table & ~within) | (address & within & kFrame);
    break;
  }
  uint64_t word = 0;
  if (!read_word(memory, table + (address & 0xff8), &word)) return false;
  *byte = uint8_t(word >> address % 8 * 8);
  return true;
}

}  // namespace

bool stopped_vcpus(const Handles& xen, uint32_t domid, XenMemory& memory,
                   std::vector<StoppedVcpu>* out, Fault* fault) {
  xc_domaininfo_t info;
  if (!domain_info(xen, domid, &info, fault)) return false;
  for (uint32_t id = 0; id <= info.max_vcpu_id; ++id) {
    hvm_hw_cpu cpu = {};
    // One that was never brought up has no state.
    if (xc_domain_hvm_getcontext_partial(xen.xc(), domid, HVM_SAVE_CODE(CPU), uint16_t(id), &cpu,
                                         sizeof cpu) != 0)
      continue;
    StoppedVcpu vcpu;
    vcpu.id = id;
    vcpu.flags = uint32_t(cpu.rflags);
    vcpu.privilege = cpu.ss_arbytes >> 5 & 3;
    vcpu.readable = (cpu.cr0 & kPaging) && (cpu.msr_efer & kLongMode) &&
                    read_byte(memory, cpu, cpu.rip - 2, &vcpu.before[0]) &&
                    read_byte(memory, cpu, cpu.rip - 1, &vcpu.before[1]);
    out->push_back(vcpu);
  }
  return true;
}

}  // namespace dormouse::xen
