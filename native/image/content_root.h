// The content root: one number for all pages of a domain, equal for equal content however it is
// stored, and changed page by page.
#pragma once
#include <cstdint>

#include "pfn/page_scan.h"

namespace dormouse::image {

class ContentRoot {
 public:
  // A page of that type; `hash` of its content, zero where it has none. A page without a frame adds
  // nothing.
  void add(uint64_t pfn, uint8_t type, const pfn::Hash128& hash);
  void remove(uint64_t pfn, uint8_t type, const pfn::Hash128& hash);

  uint64_t words[4] = {};  // little-endian, of 256 bits
};

// The hash of the page of zeroes.
const pfn::Hash128& zero_page_hash();

}  // namespace dormouse::image
