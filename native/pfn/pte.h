// What the entries of an x86-64 page table look like, for the scalar and SIMD kernels alike.
#pragma once
#include <cstdint>

namespace dormouse::pfn {

constexpr int kTableEntries = 512;
constexpr uint64_t kPtePresent = 1;
constexpr uint64_t kPtePse = 1 << 7;
constexpr int kFrameShift = 12;
constexpr uint64_t kFrameCount = 1ull << 40;  // frames that fit an entry
constexpr uint64_t kPteFrame = (kFrameCount - 1) << kFrameShift;
// Set in the frame field of a canonical entry: the rest is an MFN of the hypervisor's own.
constexpr uint64_t kXenFrameMark = kFrameCount >> 1;
// Level-4 slots of the hypervisor itself; both are multiples of every vector width used.
constexpr int kXenSlotFirst = 256;
constexpr int kXenSlotEnd = 272;

// The bits that make a present entry a superpage at this level.
constexpr uint64_t superpage_bits(int level) { return level >= 2 ? kPtePse : 0; }

// Starts the m2p look-ups of a group of entries ahead of its turn: they are random reads of a table
// larger than the near caches. A prefetch of whatever address an entry holds is harmless.
template <int lanes>
inline void prefetch_m2p(const uint64_t* m2p, const uint64_t* src, int at) {
  constexpr int kAhead = 16;
  if (at + kAhead >= kTableEntries) return;
  for (int i = at + kAhead; i < at + kAhead + lanes; i++) {
    const uint64_t frame = (src[i] & kPteFrame) >> kFrameShift;
    __builtin_prefetch(reinterpret_cast<const void*>(uintptr_t(m2p) + frame * sizeof(uint64_t)));
  }
}

}  // namespace dormouse::pfn
