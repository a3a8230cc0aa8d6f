// Questions about one 4096-byte page: is it all zero, and what is its hash.
#pragma once
#include <cstdint>

namespace dormouse::pfn {

struct Hash128 {
  uint64_t low, high;
  bool operator==(const Hash128& o) const { return low == o.low && high == o.high; }
};

bool is_zero_page(const void* page);
bool is_zero_page_scalar(const void* page);
// XXH3-128 with seed 0 over any length (xxHash 0.8 specification).
Hash128 hash128(const void* data, uint64_t bytes);
Hash128 hash128_scalar(const void* data, uint64_t bytes);

}  // namespace dormouse::pfn
