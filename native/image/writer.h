// Writes the chunks of one image. Several lanes (one per concurrent step) encode at once and put
// full segments at reserved offsets; header, manifest, index and footer are TypeScript's
// (src/image/writer.ts), which reads chunk table and page map back from here.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "fault.h"

namespace dormouse::image {

constexpr uint32_t kMaxChunkPages = 256;  // 1 MiB of pages
constexpr uint32_t kBlockPages = 16;      // pages compressed together: 64 KiB

// What a page is in the image. Every pfn below nr_pfns ends in exactly one class.
enum PageClass : uint8_t {
  kClassAbsent = 0,   // never put: an image with such a page is not committed
  kClassData = 1,     // ordinary page with a body
  kClassZero = 2,     // ordinary page, all zero, no body
  kClassTable = 3,    // page table in canonical form, with a body
  kClassNoFrame = 4,  // ballooned out or never populated
  kClassBroken = 5,
  kClassAlloc = 6,  // frame to be populated, content of no interest
  kClassSameAsParent = 7,
};

// One page of a chunk: pfn in bits 0..51, class in bits 56..59, Xen page type in bits 60..63.
constexpr uint64_t page_desc(uint64_t pfn, uint8_t page_class, uint8_t type) {
  return pfn | uint64_t(page_class) << 56 | uint64_t(type) << 60;
}
constexpr uint64_t desc_pfn(uint64_t desc) { return desc & ((1ull << 52) - 1); }
constexpr uint8_t desc_class(uint64_t desc) { return (desc >> 56) & 0xF; }
constexpr uint8_t desc_type(uint64_t desc) { return desc >> 60; }
constexpr bool class_has_body(uint8_t c) { return c == kClassData || c == kClassTable; }

class Writer {
 public:
  virtual ~Writer() = default;
  // Takes any number of pages (descs without a body and with one mixed); bodies holds the pages
  // with a body, in order, n_bodies of them. Both are free for reuse when it returns. A lane is
  // used by one thread at a time. Errors: IMAGE_WRITE_FAILED with sys_errno, NO_SPACE.
  virtual bool append(uint32_t lane, const uint64_t* descs, uint32_t n_pages, const uint8_t* bodies,
                      uint32_t n_bodies, Fault* fault) = 0;
};

}  // namespace dormouse::image
