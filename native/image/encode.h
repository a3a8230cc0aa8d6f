// Pages on their way into chunks: pure functions without files or threads.
#pragma once
#include <cstdint>

#include "fault.h"
#include "image/block_coder.h"
#include "image/chunk.h"

namespace dormouse::image {

// Pages without a body and with one mixed; `bodies` holds those with one, in order.
struct PageRun {
  const uint64_t* descs;
  uint32_t n_pages;
  const uint8_t* bodies;
  uint32_t n_bodies;
};

// Whether these pages may be in an image of nr_pfns. Fault: ACCOUNTING_MISMATCH with the pfn.
bool check_pages(const PageRun& pages, uint64_t nr_pfns, Fault* fault);

// What follows a chunk's blocks, and what precedes them. `h` has counts, runs and blocks;
// the rest of it is filled in. `begin` is the chunk's place, `end` the end of its payload. Returns
// the end of the chunk without its padding.
uint8_t* close_chunk(ChunkHeader* h, const uint32_t* lengths, const ChunkRun* runs, uint8_t* begin,
                     uint8_t* end);

// A whole chunk of at most kMaxChunkPages pages and kMaxChunkBodies bodies, without the zeroes that
// pad it. `out` has room for kMaxChunkSpan; returns the bytes written.
uint32_t encode_chunk(BlockCoder& coder, const PageRun& pages, uint8_t* out);

}  // namespace dormouse::image
