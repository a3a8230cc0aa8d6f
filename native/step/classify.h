// What each page of a batch is in an image.
#pragma once
#include <cstdint>

#include "host/host.h"
#include "image/writer.h"

namespace dormouse::step {

// Pages with what the host said of them. `pages` holds those whose type has a body, in order.
struct PageList {
  const uint64_t* pfns;
  const uint64_t* entries;
  uint32_t n;
  uint8_t* pages;
};

// Fills descs[0, n) and moves the bodies that travel together at the front of list.pages; *bodies
// says how many. Page tables are canonical already.
void classify(const PageList& list, uint64_t* descs, uint32_t* bodies);

}  // namespace dormouse::step
