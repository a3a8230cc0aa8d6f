// The page in guest memory that says which program a guest runs and where its kernel keeps things.
// All a restored domain knows of itself is this page, its other memory and its registers.
#pragma once
#include <cstdint>

#include "host/embedded/xen_layout.h"

namespace dormouse::embedded {

// Kernel virtual addresses of our guests.
constexpr uint64_t kLinearBase = 0xffff880000000000ull;  // + pfn * 4096
constexpr uint64_t kP2mBase = 0xffffc90000000000ull;     // the linear p2m list
constexpr uint64_t kWindowBase = 0xffffd00000000000ull;  // + vcpu << 30: mapped at run time

enum Program : uint32_t {
  kIdle = 0,
  kCounter,
  kWriter,
  kChurner,
  kCrasher,
  kDisker,
  kTalker,
  kPrograms
};

struct GuestText {
  char magic[16];
  uint32_t program, vcpus;
  uint64_t seed, steps, rate, working_set, skew, crash_at, deaf;
  uint64_t nr_pfns;
  uint64_t start_info_pfn, store_pfn, console_pfn, gdt_pfn;
  uint64_t l4_pfn, user_l4_pfn;
  uint64_t tree_pfn, tree_pages;  // three-level p2m: the top page, then the mid pages
  uint64_t p2m_pfn, p2m_pages;    // leaves of the p2m list
  uint64_t l1_pfn;                // first of the L1s of the linear mapping
  uint64_t window_l2_pfn;         // L2 of vCPU 0's window; one page a vCPU
  uint64_t heap_pfn, heap_pages;
  // Its block devices: of each what its driver knows and then its ring, and the grant table. All
  // zero where it has none.
  uint64_t disks, disks_read_only;  // how many; a bit for each
  uint64_t disk_pfn, grant_pfn;
  // Its network interfaces: how many, and the pages of the first one's driver.
  uint64_t networks, network_pfn;

  uint64_t heap_share() const { return heap_pages / vcpus; }
  uint64_t heap_of(uint32_t vcpu) const { return heap_pfn + vcpu * heap_share(); }
};
constexpr char kGuestMagic[16] = "dormouse-guest1";
constexpr uint64_t kTextPfn = 2;
constexpr uint64_t kMinHeapShare = 64;
constexpr uint32_t kMaxVcpus = 8;
constexpr uint32_t kMaxDisks = 4, kMaxNetworks = 4;
// Frames that a network driver has under way each way, and its pages: its own, two rings, one a
// frame.
constexpr uint32_t kNetworkSlots = 8, kNetworkPages = 3 + 2 * kNetworkSlots;
constexpr uint64_t kGrantPages = 2;
constexpr uint32_t kGrantEntries = kGrantPages * 512;
// Entries below are Xen's and the disks'.
constexpr uint32_t kFirstNetworkGrant = 640;

constexpr uint64_t linear(uint64_t pfn) { return kLinearBase + (pfn << 12); }
// Where a vCPU is: in its program, or returning from the hypercall that suspended the domain.
constexpr uint64_t kRipProgram = linear(kTextPfn) + 0x800;
constexpr uint64_t kRipSuspended = linear(kTextPfn) + 0x900;

// False unless the page is such a text and every number in it is inside a domain of nr_pfns pages.
bool text_is_sound(const GuestText& text, uint64_t nr_pfns, uint32_t vcpus);

}  // namespace dormouse::embedded
