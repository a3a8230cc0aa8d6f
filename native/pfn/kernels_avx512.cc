// AVX-512 kernels. Eight entries at a time; the two maps are read by masked gathers, so that no
// lane that failed a bound is ever dereferenced.
#include <immintrin.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "pfn/kernels.h"
#include "pfn/pte.h"

namespace dormouse::pfn {
namespace {

constexpr int kLanes = 8;

struct Group {
  __m512i entries;
  __mmask8 present, superpage, in_range, good;
};

__m512i splat(uint64_t value) { return _mm512_set1_epi64(int64_t(value)); }

__m512i gather(__mmask8 lanes, __m512i index, const uint64_t* table) {
  return _mm512_mask_i64gather_epi64(_mm512_set1_epi64(-1), lanes, index, table, 8);
}

// The p2m entries of the lanes in `ours`. A table that maps its pfns in order, as those of a
// kernel's direct map do, needs one plain load.
__m512i p2m_of(__m512i pfns, __mmask8 ours, const uint64_t* p2m) {
  const uint64_t first = uint64_t(_mm_cvtsi128_si64(_mm512_castsi512_si128(pfns)));
  const __m512i run = _mm512_add_epi64(splat(first), _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0));
  if (_mm512_mask_cmpeq_epu64_mask(ours, pfns, run) == 0xFF) return _mm512_loadu_si512(p2m + first);
  return gather(ours, pfns, p2m);
}

Group read_group(const uint64_t* src, uint64_t superpage_mask) {
  Group g;
  g.entries = _mm512_loadu_si512(src);
  g.present = _mm512_test_epi64_mask(g.entries, splat(kPtePresent));
  g.superpage = _mm512_mask_test_epi64_mask(g.present, g.entries, splat(superpage_mask));
  return g;
}

__m512i frames_of(const Group& g) {
  return _mm512_srli_epi64(_mm512_and_si512(g.entries, splat(kPteFrame)), kFrameShift);
}

__m512i with_frames(const Group& g, __m512i frames) {
  const __m512i moved = _mm512_slli_epi64(frames, kFrameShift);
  // frame ? moved : entry, bit by bit, in the present lanes only.
  const __m512i mixed = _mm512_ternarylogic_epi64(splat(kPteFrame), moved, g.entries, 0xCA);
  return _mm512_mask_mov_epi64(g.entries, g.present, mixed);
}

struct ToPfn {
  static constexpr TableFault kRange = TableFault::mfn_out_of_range;
  static constexpr TableFault kOther = TableFault::foreign_mfn;
  static constexpr bool kZeroXenSlots = true;
  static __m512i translate(const FrameMaps& maps, Group* g) {
    const __m512i mfns = frames_of(*g);
    g->in_range = _mm512_mask_cmplt_epu64_mask(g->present, mfns, splat(maps.nr_mfns));
    const __m512i pfns = gather(g->in_range, mfns, maps.m2p);
    const __mmask8 ours = _mm512_mask_cmplt_epu64_mask(g->in_range, pfns, splat(maps.nr_pfns));
    const __m512i back = p2m_of(pfns, ours, maps.p2m);
    g->good = _mm512_mask_cmpeq_epu64_mask(ours, _mm512_and_si512(back, splat(kMfnMask)), mfns);
    return pfns;
  }
};

struct ToMfn {
  static constexpr TableFault kRange = TableFault::pfn_out_of_range;
  static constexpr TableFault kOther = TableFault::pfn_no_frame;
  static constexpr bool kZeroXenSlots = false;
  static __m512i translate(const FrameMaps& maps, Group* g) {
    const __m512i pfns = frames_of(*g);
    g->in_range = _mm512_mask_cmplt_epu64_mask(g->present, pfns, splat(maps.nr_pfns));
    const __m512i mfns = _mm512_and_si512(gather(g->in_range, pfns, maps.p2m), splat(kMfnMask));
    g->good = _mm512_mask_cmplt_epu64_mask(g->in_range, mfns, splat(kFrameCount));
    return mfns;
  }
};

// The first offending lane of a group that has one, judged by what was loaded.
template <typename Way>
TableResult fault_of(const Group& g, int first) {
  const unsigned bad = g.superpage | (g.present & ~g.good);
  const int lane = __builtin_ctz(bad);
  alignas(64) uint64_t entries[kLanes];
  _mm512_store_si512(entries, g.entries);
  const unsigned bit = 1u << lane;
  const TableFault fault = g.superpage & bit     ? TableFault::superpage
                           : !(g.in_range & bit) ? Way::kRange
                                                 : Way::kOther;
  return {fault, uint16_t(first + lane), entries[lane], 0};
}

template <typename Way>
TableResult translate_table(const FrameMaps& maps, int level, const uint64_t* src, uint64_t* dst) {
  TableResult result;
  const uint64_t superpage_mask = superpage_bits(level);
  for (int i = 0; i < kTableEntries; i += kLanes) {
    if (level == 4 && i >= kXenSlotFirst && i < kXenSlotEnd) {
      const __m512i slots = _mm512_loadu_si512(src + i);
      _mm512_storeu_si512(dst + i, Way::kZeroXenSlots ? _mm512_setzero_si512() : slots);
      continue;
    }
    Group g = read_group(src + i, superpage_mask);
    if (!g.present) {
      _mm512_storeu_si512(dst + i, g.entries);
      continue;
    }
    if (Way::kZeroXenSlots) prefetch_m2p<kLanes>(maps.m2p, src, i);
    const __m512i frames = Way::translate(maps, &g);
    if (g.superpage || g.good != g.present) return fault_of<Way>(g, i);
    _mm512_storeu_si512(dst + i, with_frames(g, frames));
    result.present += uint16_t(__builtin_popcount(g.present));
  }
  return result;
}

bool is_zero_page_avx512(const void* page) {
  const auto* at = static_cast<const __m512i*>(page);
  for (int i = 0; i < 64; i += 4) {
    const __m512i a = _mm512_or_si512(_mm512_loadu_si512(at + i), _mm512_loadu_si512(at + i + 1));
    const __m512i b =
        _mm512_or_si512(_mm512_loadu_si512(at + i + 2), _mm512_loadu_si512(at + i + 3));
    const __m512i any = _mm512_or_si512(a, b);
    if (_mm512_test_epi64_mask(any, any)) return false;
  }
  return true;
}

Hash128 hash128_avx512(const void* data, uint64_t bytes) {
  const XXH128_hash_t hash = XXH3_128bits(data, bytes);
  return {hash.low64, hash.high64};
}

}  // namespace

const Kernels kAvx512Kernels = {"avx512", translate_table<ToPfn>, translate_table<ToMfn>,
                                is_zero_page_avx512, hash128_avx512};

}  // namespace dormouse::pfn
