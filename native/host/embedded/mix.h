// SplitMix64: one well-mixed word from another. Guest programs and the frame order draw from it.
#pragma once
#include <cstdint>

namespace dormouse::embedded {

constexpr uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

}  // namespace dormouse::embedded
