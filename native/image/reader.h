// Reads chunks of one image (of an increment: also of its ancestors). Everything is checked before
// it is believed: a chunk's checksum before its bytes are parsed, every length before it is used.
// src/image/reader.ts validates header, manifest, index and footer and hands chunk table and page
// map over.
#pragma once
#include <cstdint>
#include <vector>

#include "fault.h"
#include "image/chunk.h"

namespace dormouse::image {

struct DecodedChunk {
  const uint64_t* descs;  // n_pages of them (see writer.h)
  uint32_t n_pages;
  const uint8_t* bodies;  // n_bodies pages, for the descs whose class has a body, in order
  uint32_t n_bodies;
};

// A chunk that was checked and decoded, as its file has it.
struct StoredChunk {
  int fd;
  uint64_t offset;
  const uint8_t* span;
  uint32_t bytes;
  uint64_t hash_low, hash_high;
  DecodedChunk pages;
  std::vector<bool> counts;  // by slot
};

// Pages without a body whose class still says something to restore: zero, broken, alloc.
struct BlankPages {
  uint64_t first;
  uint64_t count;
  uint8_t page_class;
  uint8_t type;
};

class Reader {
 public:
  virtual ~Reader() = default;
  virtual uint64_t nr_pfns() const = 0;
  virtual uint32_t nr_chunks() const = 0;
  // Compares the stored bytes of a chunk with the index's checksum; decodes nothing.
  // Error: IMAGE_DAMAGED with chunk and offset.
  virtual bool check_chunk(uint32_t lane, uint32_t chunk, Fault* fault) = 0;
  // Checks and decodes; `out` points into the lane's buffers until its next call. Of pages that do
  // not count the bodies may be anything.
  virtual bool read_chunk(uint32_t lane, uint32_t chunk, DecodedChunk* out, Fault* fault) = 0;
  // Checks a chunk as read_chunk() does and, where its file has none, fills in the hashes of its
  // pages; after room was made for them.
  virtual bool hash_chunk(uint32_t lane, uint32_t chunk, Fault* fault) = 0;
  virtual uint32_t lanes() const = 0;
  // The pages that are in no chunk but have a frame or are broken, in pieces of bounded size, by
  // ascending pfn. To a step that walks an image they follow the chunks: unit nr_chunks() + i.
  virtual const std::vector<BlankPages>& blanks() const = 0;
  uint32_t nr_units() const { return nr_chunks() + uint32_t(blanks().size()); }
  // True if the page at `slot` of `chunk` is the copy of `pfn` that counts (the last one written).
  virtual bool is_current(uint32_t chunk, uint32_t slot, uint64_t pfn) const = 0;
};

}  // namespace dormouse::image
