// SHA-256 (FIPS 180-4): what a signature vouches for must not be open to forged checksums.
#pragma once
#include <array>
#include <cstdint>

#include "fault.h"

namespace dormouse::pfn {

using Sha256 = std::array<uint8_t, 32>;

// NO_MEMORY.
bool sha256(const uint8_t* bytes, uint64_t n, Sha256* out, Fault* fault);

}  // namespace dormouse::pfn
