// One chunk as bytes: pure functions without files or threads. Every byte is believed only after it
// was checked, so that any input gives a result or a fault.
#pragma once
#include <cstdint>
#include <vector>

#include "fault.h"
#include "image/format.h"

namespace dormouse::image {

// What a page is in the image. Every pfn below nr_pfns ends in exactly one class.
enum PageClass : uint8_t {
  kClassAbsent = 0,   // never put: an image with such a page is not committed
  kClassData = 1,     // ordinary page with a body
  kClassZero = 2,     // ordinary page, all zero, no body
  kClassTable = 3,    // page table in canonical form, with a body
  kClassNoFrame = 4,  // ballooned out or never populated
  kClassBroken = 5,
  kClassAlloc = 6,         // frame to be populated, content of no interest
  kClassSameAsParent = 7,  // in counts only: what an increment's map leaves out
};
constexpr uint8_t kClasses = 16;

// One page of a chunk: pfn in bits 0..51, class in bits 56..59, Xen page type in bits 60..63.
constexpr uint64_t kDescPfnMask = (1ull << 52) - 1;
constexpr uint64_t page_desc(uint64_t pfn, uint8_t page_class, uint8_t type) {
  return pfn | uint64_t(page_class) << 56 | uint64_t(type) << 60;
}
constexpr uint64_t desc_pfn(uint64_t desc) { return desc & kDescPfnMask; }
constexpr uint8_t desc_class(uint64_t desc) { return (desc >> 56) & 0xF; }
constexpr uint8_t desc_type(uint64_t desc) { return desc >> 60; }
constexpr bool class_has_body(uint8_t c) { return c == kClassData || c == kClassTable; }
// Whether a page of that class has content, be it zeroes.
constexpr bool class_has_content(uint8_t c) { return class_has_body(c) || c == kClassZero; }

// True if a page of that Xen type may be of that class: page tables are `table` and nothing else
// is, and the types without content are noFrame, broken and alloc.
bool class_fits_type(uint8_t page_class, uint8_t type);

// What the caller knows of a chunk before it reads it.
struct ChunkExpect {
  uint32_t chunk;  // its number, for faults
  uint64_t nr_pfns;
  bool newer;           // of a newer minor version: reserved bytes may hold anything
  bool deltas = false;  // it may be one of deltas
};

// A chunk whose header, runs and block lengths were checked against each other and against the
// number of bytes. Points into them.
struct ChunkView {
  uint32_t chunk;
  ChunkHeader header;
  const uint8_t* payload;
  const uint8_t* block_table;
  const uint8_t* runs;
  const uint8_t* bases;  // of a chunk of deltas
};

// One page of a chunk of deltas.
struct StoredDelta {
  uint32_t slot;
  const uint8_t* bytes;
  uint32_t size;
  DeltaBase base;
};

// Checks the structure of a chunk of exactly n bytes. Faults: IMAGE_DAMAGED with the chunk's number
// (pfn too where one is at fault); IMAGE_INCOMPATIBLE for a kind or codec that is not known.
bool parse_chunk(const uint8_t* bytes, uint64_t n, const ChunkExpect& expect, ChunkView* view,
                 Fault* fault);

// Writes header.pages descs.
void expand_runs(const ChunkView& view, uint64_t* descs);

// All of a parsed chunk of deltas, by slot.
void list_deltas(const ChunkView& view, std::vector<StoredDelta>* out);

// Decodes block `block` of a parsed chunk of pages; `out` has room for kBlockBytes.
bool decode_block(const ChunkView& view, uint32_t block, uint8_t* out, uint32_t* n_pages,
                  Fault* fault);

// All of a chunk of pages: parse, expand, decode every block. `descs` has room for kMaxChunkPages,
// `bodies` for kMaxChunkBodies pages.
bool decode_chunk(const uint8_t* bytes, uint64_t n, const ChunkExpect& expect, uint64_t* descs,
                  uint32_t* n_pages, uint8_t* bodies, uint32_t* n_bodies, Fault* fault);

}  // namespace dormouse::image
