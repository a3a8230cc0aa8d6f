// Pages, their types and their frames: plain words that every folder below the steps speaks.
#pragma once
#include <cstdint>

namespace dormouse::pfn {

constexpr uint64_t kPageSize = 4096;
constexpr uint64_t kMfnMask = (1ull << 52) - 1;
constexpr uint64_t kNoMfn = kMfnMask;

// Page type nibbles (xen/include/public/domctl.h, XEN_DOMCTL_PFINFO_*; stream specification 1.3).
enum PageType : uint8_t {
  kNotab = 0x0,
  kL1 = 0x1,
  kL2 = 0x2,
  kL3 = 0x3,
  kL4 = 0x4,
  kPinned = 0x8,  // or-ed with kL1..kL4
  kBroken = 0xD,
  kXalloc = 0xE,
  kXtab = 0xF,
};
constexpr uint8_t type_of(uint64_t entry) { return entry >> 60; }
constexpr uint64_t mfn_of(uint64_t entry) { return entry & kMfnMask; }
// 1..4 for a page table (pinned or not), 0 for anything else.
constexpr int table_level(uint8_t type) {
  const int level = type & 0x7;
  return type < kBroken && level >= 1 && level <= 4 ? level : 0;
}
// True for the types whose content travels (everything but broken, xalloc and xtab).
constexpr bool has_body(uint8_t type) { return type < kBroken; }

// How an MFN is judged: it is the domain's only if m2p[mfn] < nr_pfns and p2m[m2p[mfn]] == mfn.
// p2m entries are masked with kMfnMask before use (they may carry a type nibble).
// Pointers stay valid as long as the DomainMemory they came from.
struct FrameMaps {
  const uint64_t* p2m;
  uint64_t nr_pfns;
  const uint64_t* m2p;
  uint64_t nr_mfns;
};

}  // namespace dormouse::pfn
