// SHA-256 by the processor's own instructions. Rounds four at a time, as FIPS 180-4 has them; the
// state is kept as ABEF and CDGH, which is what SHA256RNDS2 takes.
#include <cpuid.h>
#include <immintrin.h>

#include "pfn/sha256.h"

namespace dormouse::pfn {

bool has_sha_ni() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSSE3) || !(c & bit_SSE4_1)) return false;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA);
}

__attribute__((target("sha,sse4.1,ssse3"))) void sha256_blocks_ni(uint32_t state[8],
                                                                  const uint8_t* data,
                                                                  uint64_t blocks) {
  const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bll, 0x0405060700010203ll);
  __m128i abcd = _mm_loadu_si128(reinterpret_cast<const __m128i*>(state));
  __m128i efgh = _mm_loadu_si128(reinterpret_cast<const __m128i*>(state + 4));
  abcd = _mm_shuffle_epi32(abcd, 0xB1);
  efgh = _mm_shuffle_epi32(efgh, 0x1B);
  __m128i abef = _mm_alignr_epi8(abcd, efgh, 8);
  __m128i cdgh = _mm_blend_epi16(efgh, abcd, 0xF0);
  for (; blocks != 0; --blocks, data += 64) {
    const __m128i abef_before = abef, cdgh_before = cdgh;
    __m128i w[4];
    for (int i = 0; i < 4; ++i)
      w[i] = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(data) + i), swap);
#pragma GCC unroll 16
    for (int group = 0; group < 16; ++group) {
      __m128i& now = w[group % 4];
      if (group >= 4) {
        const __m128i before = w[(group + 3) % 4];  // the group right before this one
        now = _mm_sha256msg1_epu32(now, w[(group + 1) % 4]);
        now = _mm_add_epi32(now, _mm_alignr_epi8(before, w[(group + 2) % 4], 4));
        now = _mm_sha256msg2_epu32(now, before);
      }
      __m128i round = _mm_add_epi32(
          now, _mm_loadu_si128(reinterpret_cast<const __m128i*>(kSha256Rounds + 4 * group)));
      cdgh = _mm_sha256rnds2_epu32(cdgh, abef, round);
      round = _mm_shuffle_epi32(round, 0x0E);
      abef = _mm_sha256rnds2_epu32(abef, cdgh, round);
    }
    abef = _mm_add_epi32(abef, abef_before);
    cdgh = _mm_add_epi32(cdgh, cdgh_before);
  }
  abef = _mm_shuffle_epi32(abef, 0x1B);
  cdgh = _mm_shuffle_epi32(cdgh, 0xB1);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(state), _mm_blend_epi16(abef, cdgh, 0xF0));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(state + 4), _mm_alignr_epi8(cdgh, abef, 8));
}

}  // namespace dormouse::pfn
