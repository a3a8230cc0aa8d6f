#include "codec/delta.h"

#include <cstring>

namespace dormouse::codec {
namespace {

// Of LZ4: the densest. Most of a difference is zeroes, which cost it next to nothing.
constexpr int kAcceleration = 1;

// `to` may be `a` or `b`. Words, so that the compiler makes vectors of them.
void exclusive_or(const uint8_t* a, const uint8_t* b, uint8_t* to, uint32_t bytes) {
  uint32_t at = 0;
  for (; at + 8 <= bytes; at += 8) {
    uint64_t x, y;
    std::memcpy(&x, a + at, 8);
    std::memcpy(&y, b + at, 8);
    x ^= y;
    std::memcpy(to + at, &x, 8);
  }
  for (; at < bytes; at++) to[at] = a[at] ^ b[at];
}

}  // namespace

uint32_t delta_compress(DeltaState& state, const uint8_t* now, const uint8_t* base, uint32_t bytes,
                        uint8_t* dst, uint32_t capacity) {
  if (bytes > kDeltaMaxBytes) return 0;
  uint8_t* const difference = state.difference_.get();
  exclusive_or(now, base, difference, bytes);
  return lz4_compress(state.lz4_, difference, bytes, dst, capacity, kAcceleration);
}

bool delta_apply(DeltaState& state, const uint8_t* src, uint32_t stored, uint8_t* pages,
                 uint32_t bytes) {
  uint8_t* const difference = state.difference_.get();
  if (bytes > kDeltaMaxBytes || !lz4_decompress(src, stored, difference, bytes)) return false;
  exclusive_or(pages, difference, pages, bytes);
  return true;
}

}  // namespace dormouse::codec
