// SHA-256 (FIPS 180-4): what a signature vouches for must not be open to forged checksums.
#pragma once
#include <array>
#include <cstdint>

namespace dormouse::pfn {

using Sha256 = std::array<uint8_t, 32>;

// By the processor's own instructions where it has them, unless `scalar`.
Sha256 sha256(const uint8_t* bytes, uint64_t n, bool scalar = false);

// The two halves of that: whether the instructions are there, and whole blocks of 64 bytes by them.
bool has_sha_ni();
void sha256_blocks_ni(uint32_t state[8], const uint8_t* data, uint64_t blocks);
extern const uint32_t kSha256Rounds[64];

}  // namespace dormouse::pfn
