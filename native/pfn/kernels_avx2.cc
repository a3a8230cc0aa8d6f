// AVX2 kernels. Four entries at a time; the two maps are read by masked gathers, so that no lane
// that failed a bound is ever dereferenced.
#include <immintrin.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "pfn/kernels.h"
#include "pfn/pte.h"

namespace dormouse::pfn {
namespace {

constexpr int kLanes = 4;

// Lane masks are all ones or all zero.
struct Group {
  __m256i entries, present, superpage, in_range, good;
};

__m256i splat(uint64_t value) { return _mm256_set1_epi64x(int64_t(value)); }
__m256i load(const uint64_t* at) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
}
void store(uint64_t* at, __m256i value) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), value);
}
int lanes(__m256i mask) { return _mm256_movemask_pd(_mm256_castsi256_pd(mask)); }

// AVX2 compares signed; turning the top bit over on both sides makes that the unsigned order.
__m256i below(__m256i value, uint64_t bound) {
  const __m256i top = splat(1ull << 63);
  return _mm256_cmpgt_epi64(splat(bound ^ 1ull << 63), _mm256_xor_si256(value, top));
}

__m256i gather(__m256i mask, __m256i index, const uint64_t* table) {
  return _mm256_mask_i64gather_epi64(_mm256_set1_epi64x(-1),
                                     reinterpret_cast<const long long*>(table), index, mask, 8);
}

// The p2m entries of the lanes in `ours`. A table that maps its pfns in order, as those of a
// kernel's direct map do, needs one plain load.
__m256i p2m_of(__m256i pfns, __m256i ours, const uint64_t* p2m) {
  const uint64_t first = uint64_t(_mm_cvtsi128_si64(_mm256_castsi256_si128(pfns)));
  const __m256i run = _mm256_add_epi64(splat(first), _mm256_set_epi64x(3, 2, 1, 0));
  if (lanes(_mm256_and_si256(ours, _mm256_cmpeq_epi64(pfns, run))) == 0xF) return load(p2m + first);
  return gather(ours, pfns, p2m);
}

__m256i has_bits(__m256i entries, uint64_t one_bit) {
  const __m256i bit = splat(one_bit);
  return _mm256_cmpeq_epi64(_mm256_and_si256(entries, bit), bit);
}

__m256i frames_of(const Group& g) {
  return _mm256_srli_epi64(_mm256_and_si256(g.entries, splat(kPteFrame)), kFrameShift);
}

__m256i with_frames(const Group& g, __m256i frames) {
  const __m256i flags = _mm256_andnot_si256(splat(kPteFrame), g.entries);
  const __m256i mixed = _mm256_or_si256(flags, _mm256_slli_epi64(frames, kFrameShift));
  return _mm256_blendv_epi8(g.entries, mixed, g.present);
}

struct ToPfn {
  static constexpr TableFault kRange = TableFault::mfn_out_of_range;
  static constexpr TableFault kOther = TableFault::foreign_mfn;
  static constexpr bool kZeroXenSlots = true;
  static __m256i translate(const FrameMaps& maps, Group* g) {
    const __m256i mfns = frames_of(*g);
    g->in_range = _mm256_and_si256(g->present, below(mfns, maps.nr_mfns));
    const __m256i pfns = gather(g->in_range, mfns, maps.m2p);
    const __m256i ours = _mm256_and_si256(g->in_range, below(pfns, maps.nr_pfns));
    const __m256i back = _mm256_and_si256(p2m_of(pfns, ours, maps.p2m), splat(kMfnMask));
    g->good = _mm256_and_si256(ours, _mm256_cmpeq_epi64(back, mfns));
    return pfns;
  }
};

struct ToMfn {
  static constexpr TableFault kRange = TableFault::pfn_out_of_range;
  static constexpr TableFault kOther = TableFault::pfn_no_frame;
  static constexpr bool kZeroXenSlots = false;
  static __m256i translate(const FrameMaps& maps, Group* g) {
    const __m256i pfns = frames_of(*g);
    g->in_range = _mm256_and_si256(g->present, below(pfns, maps.nr_pfns));
    const __m256i mfns = _mm256_and_si256(gather(g->in_range, pfns, maps.p2m), splat(kMfnMask));
    g->good = _mm256_and_si256(g->in_range, below(mfns, kFrameCount));
    return mfns;
  }
};

// The first offending lane of a group that has one, judged by what was loaded.
template <typename Way>
TableResult fault_of(const Group& g, int first) {
  const int superpage = lanes(g.superpage);
  const int lane = __builtin_ctz(unsigned(superpage | (lanes(g.present) & ~lanes(g.good))));
  uint64_t entries[kLanes];
  store(entries, g.entries);
  const int bit = 1 << lane;
  const TableFault fault = superpage & bit              ? TableFault::superpage
                           : !(lanes(g.in_range) & bit) ? Way::kRange
                                                        : Way::kOther;
  return {fault, uint16_t(first + lane), entries[lane], 0};
}

template <typename Way>
TableResult translate_table(const FrameMaps& maps, int level, const uint64_t* src, uint64_t* dst) {
  TableResult result;
  for (int i = 0; i < kTableEntries; i += kLanes) {
    Group g;
    g.entries = load(src + i);
    if (level == 4 && i >= kXenSlotFirst && i < kXenSlotEnd) {
      store(dst + i, Way::kZeroXenSlots ? _mm256_setzero_si256() : g.entries);
      continue;
    }
    g.present = has_bits(g.entries, kPtePresent);
    const int present = lanes(g.present);
    if (!present) {
      store(dst + i, g.entries);
      continue;
    }
    g.superpage = level >= 2 ? _mm256_and_si256(g.present, has_bits(g.entries, kPtePse))
                             : _mm256_setzero_si256();
    if (Way::kZeroXenSlots) prefetch_m2p<kLanes>(maps.m2p, src, i);
    const __m256i frames = Way::translate(maps, &g);
    if (lanes(g.superpage) || lanes(g.good) != present) return fault_of<Way>(g, i);
    store(dst + i, with_frames(g, frames));
    result.present += uint16_t(__builtin_popcount(unsigned(present)));
  }
  return result;
}

bool is_zero_page_avx2(const void* page) {
  const auto* at = static_cast<const __m256i*>(page);
  for (int i = 0; i < 128; i += 4) {
    const __m256i a = _mm256_or_si256(_mm256_loadu_si256(at + i), _mm256_loadu_si256(at + i + 1));
    const __m256i b =
        _mm256_or_si256(_mm256_loadu_si256(at + i + 2), _mm256_loadu_si256(at + i + 3));
    const __m256i any = _mm256_or_si256(a, b);
    if (!_mm256_testz_si256(any, any)) return false;
  }
  return true;
}

Hash128 hash128_avx2(const void* data, uint64_t bytes) {
  const XXH128_hash_t hash = XXH3_128bits(data, bytes);
  return {hash.low64, hash.high64};
}

}  // namespace

const Kernels kAvx2Kernels = {"avx2", translate_table<ToPfn>, translate_table<ToMfn>,
                              is_zero_page_avx2, hash128_avx2};

}  // namespace dormouse::pfn
