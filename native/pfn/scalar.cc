// The reference every SIMD kernel must equal, and the fallback.
#define XXH_INLINE_ALL
#define XXH_VECTOR 0
#include <xxhash.h>

#include <cstring>

#include "pfn/kernels.h"
#include "pfn/pte.h"

namespace dormouse::pfn {
namespace {

// The maps may be shared with a running hypervisor: one load, and only its value is judged.
uint64_t load_once(const uint64_t* at) { return __atomic_load_n(at, __ATOMIC_RELAXED); }

TableFault frame_to_pfn(const FrameMaps& maps, uint64_t mfn, uint64_t* pfn) {
  if (mfn >= maps.nr_mfns) return TableFault::mfn_out_of_range;
  *pfn = load_once(maps.m2p + mfn);
  if (*pfn >= maps.nr_pfns) return TableFault::foreign_mfn;
  const uint64_t back = load_once(maps.p2m + *pfn) & kMfnMask;
  return back == mfn ? TableFault::none : TableFault::foreign_mfn;
}

// m2p of a page that the hypervisor lends to a domain (INVALID_M2P_ENTRY).
constexpr uint64_t kNobodysFrame = ~0ull;

TableFault frame_to_pfn_or_mark(const FrameMaps& maps, uint64_t mfn, uint64_t* pfn) {
  const TableFault fault = frame_to_pfn(maps, mfn, pfn);
  if (fault != TableFault::foreign_mfn || *pfn != kNobodysFrame || mfn >= kXenFrameMark)
    return fault;
  *pfn = mfn | kXenFrameMark;
  return TableFault::none;
}

TableFault frame_to_mfn(const FrameMaps& maps, uint64_t pfn, uint64_t* mfn) {
  if (pfn >= maps.nr_pfns) return TableFault::pfn_out_of_range;
  *mfn = load_once(maps.p2m + pfn) & kMfnMask;
  // An MFN that no entry can hold is no frame either; kNoMfn is one of them.
  return *mfn < kFrameCount ? TableFault::none : TableFault::pfn_no_frame;
}

// The same domain still has what the hypervisor lent it.
TableFault frame_or_mark_to_mfn(const FrameMaps& maps, uint64_t pfn, uint64_t* mfn) {
  if (!(pfn & kXenFrameMark)) return frame_to_mfn(maps, pfn, mfn);
  *mfn = pfn & ~kXenFrameMark;
  if (*mfn >= maps.nr_mfns) return TableFault::mfn_out_of_range;
  return load_once(maps.m2p + *mfn) == kNobodysFrame ? TableFault::none : TableFault::foreign_mfn;
}

using Translate = TableFault (*)(const FrameMaps&, uint64_t, uint64_t*);

template <Translate translate, bool zero_xen_slots>
TableResult translate_table(const FrameMaps& maps, int level, const uint64_t* src, uint64_t* dst) {
  TableResult result;
  for (int i = 0; i < kTableEntries; i++) {
    const uint64_t entry = src[i];
    if (level == 4 && i >= kXenSlotFirst && i < kXenSlotEnd) {
      dst[i] = zero_xen_slots ? 0 : entry;
      continue;
    }
    if (!(entry & kPtePresent)) {
      dst[i] = entry;
      continue;
    }
    uint64_t frame = 0;
    TableFault fault = TableFault::superpage;
    if (!(entry & superpage_bits(level)))
      fault = translate(maps, (entry & kPteFrame) >> kFrameShift, &frame);
    if (fault != TableFault::none) return {fault, uint16_t(i), entry, 0};
    dst[i] = (entry & ~kPteFrame) | frame << kFrameShift;
    result.present++;
  }
  return result;
}

}  // namespace

const char* table_fault_text(TableFault fault) {
  switch (fault) {
    case TableFault::none:
      return "no fault";
    case TableFault::superpage:
      return "maps a superpage";
    case TableFault::mfn_out_of_range:
      return "maps an MFN beyond the machine's memory";
    case TableFault::foreign_mfn:
      return "maps an MFN that is not the domain's";
    case TableFault::pfn_out_of_range:
      return "maps a PFN beyond the domain's memory";
    case TableFault::pfn_no_frame:
      return "maps a PFN that has no frame";
  }
  return "unknown fault";
}

TableResult canonicalise_scalar(const FrameMaps& maps, int level, const uint64_t* src,
                                uint64_t* dst) {
  return translate_table<frame_to_pfn, true>(maps, level, src, dst);
}

TableResult canonicalise_running(const FrameMaps& maps, int level, const uint64_t* src,
                                 uint64_t* dst) {
  return translate_table<frame_to_pfn_or_mark, true>(maps, level, src, dst);
}

TableResult localise_scalar(const FrameMaps& maps, int level, const uint64_t* src, uint64_t* dst) {
  return translate_table<frame_to_mfn, false>(maps, level, src, dst);
}

TableResult localise_running(const FrameMaps& maps, int level, const uint64_t* src, uint64_t* dst) {
  return translate_table<frame_or_mark_to_mfn, false>(maps, level, src, dst);
}

bool is_zero_page_scalar(const void* page) {
  const auto* bytes = static_cast<const uint8_t*>(page);
  constexpr size_t kStep = 128;
  for (size_t at = 0; at < kPageSize; at += kStep) {
    uint64_t words[kStep / 8], any = 0;
    std::memcpy(words, bytes + at, kStep);
    for (const uint64_t word : words) any |= word;
    if (any) return false;
  }
  return true;
}

Hash128 hash128_scalar(const void* data, uint64_t bytes) {
  const XXH128_hash_t hash = XXH3_128bits(data, bytes);
  return {hash.low64, hash.high64};
}

const Kernels kScalarKernels = {"scalar", canonicalise_scalar, localise_scalar, is_zero_page_scalar,
                                hash128_scalar};

}  // namespace dormouse::pfn
