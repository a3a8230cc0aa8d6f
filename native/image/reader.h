// Reads chunks of one image. Everything is checked before it is believed: a chunk's checksum before
// its bytes are parsed, every length before it is used. src/image/reader.ts validates header,
// manifest, index and footer and hands chunk table and page map over.
#pragma once
#include <cstdint>

#include "fault.h"
#include "image/chunk.h"

namespace dormouse::image {

struct DecodedChunk {
  const uint64_t* descs;  // n_pages of them (see writer.h)
  uint32_t n_pages;
  const uint8_t* bodies;  // n_bodies pages, for the descs whose class has a body, in order
  uint32_t n_bodies;
};

class Reader {
 public:
  virtual ~Reader() = default;
  virtual uint64_t nr_pfns() const = 0;
  virtual uint32_t nr_chunks() const = 0;
  // Compares the stored bytes of a chunk with the index's checksum; decodes nothing.
  // Error: IMAGE_DAMAGED with chunk and offset.
  virtual bool check_chunk(uint32_t lane, uint32_t chunk, Fault* fault) = 0;
  // Checks and decodes; `out` points into the lane's buffers until its next call.
  virtual bool read_chunk(uint32_t lane, uint32_t chunk, DecodedChunk* out, Fault* fault) = 0;
  virtual uint32_t lanes() const = 0;
  // True if the page at `slot` of `chunk` is the copy of `pfn` that counts (the last one written).
  virtual bool is_current(uint32_t chunk, uint32_t slot, uint64_t pfn) const = 0;
};

}  // namespace dormouse::image
