// Pages as what changed of them: XOR against what they were, then one LZ4 block.
#pragma once
#include <cstdint>
#include <memory>

#include "codec/lz4.h"

namespace dormouse::codec {

// The most bytes that one delta is of: a block of 16 pages.
constexpr uint32_t kDeltaMaxBytes = 1u << 16;

// What one lane needs, so that no call allocates. Not shared between threads while a call runs.
class DeltaState {
 public:
  DeltaState() : difference_(new uint8_t[kDeltaMaxBytes]) {}

 private:
  friend uint32_t delta_compress(DeltaState&, const uint8_t*, const uint8_t*, uint32_t, uint8_t*,
                                 uint32_t);
  friend bool delta_apply(DeltaState&, const uint8_t*, uint32_t, uint8_t*, uint32_t);
  Lz4State lz4_;
  std::unique_ptr<uint8_t[]> difference_;
};

// Codes what makes `now` of `base`, both of `bytes`. Returns the coded size, or 0 where it does not
// fit `capacity` (what was changed is then stored as it is) or bytes is above kDeltaMaxBytes.
uint32_t delta_compress(DeltaState& state, const uint8_t* now, const uint8_t* base, uint32_t bytes,
                        uint8_t* dst, uint32_t capacity);

// Makes of the base in `pages` what was coded. False where src is no delta of exactly so many
// bytes, and `pages` is then as it was. Safe for any src. Whether it was the right base only a
// checksum of the result can tell.
bool delta_apply(DeltaState& state, const uint8_t* src, uint32_t stored, uint8_t* pages,
                 uint32_t bytes);

}  // namespace dormouse::codec
