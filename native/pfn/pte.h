// What the entries of an x86-64 page table look like. Plain constants, safe in every SIMD unit.
#pragma once
#include <cstdint>

namespace dormouse::pfn {

constexpr int kTableEntries = 512;
constexpr uint64_t kPtePresent = 1;
constexpr uint64_t kPtePse = 1 << 7;
constexpr int kFrameShift = 12;
constexpr uint64_t kFrameCount = 1ull << 40;  // frames that fit an entry
constexpr uint64_t kPteFrame = (kFrameCount - 1) << kFrameShift;
// Level-4 slots of the hypervisor itself; both are multiples of every vector width used.
constexpr int kXenSlotFirst = 256;
constexpr int kXenSlotEnd = 272;

// The bits that make a present entry a superpage at this level.
constexpr uint64_t superpage_bits(int level) { return level >= 2 ? kPtePse : 0; }

}  // namespace dormouse::pfn
