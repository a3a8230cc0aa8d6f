#include "host/hole_map.h"

#include <algorithm>

namespace dormouse::host {

void HoleMap::begin(uint64_t nr_pfns) {
  trusted_ = false;
  nr_pfns_ = nr_pfns;
  inhabited_.assign((nr_pfns + kStretch - 1) / kStretch, 0);
}

void HoleMap::inhabit_logged(const uint8_t* bitmap, uint64_t nr_pfns) {
  const uint64_t end = std::min(nr_pfns, nr_pfns_);
  for (uint64_t first = 0; first < end; first += kStretch) {
    if (!is_hole(first / kStretch)) continue;
    const uint8_t* from = bitmap + first / 8;
    const uint8_t* to = bitmap + (std::min<uint64_t>(end, first + kStretch) + 7) / 8;
    if (std::any_of(from, to, [](uint8_t byte) { return byte != 0; })) inhabit(first);
  }
}

uint64_t HoleMap::next_present(uint64_t pfn) const {
  if (!trusted_) return pfn;
  while (pfn < nr_pfns_ && is_hole(pfn / kStretch)) pfn = (pfn / kStretch + 1) * kStretch;
  return std::min(pfn, nr_pfns_);
}

}  // namespace dormouse::host
