// Blocks of pages as they are stored: compressed, as they are, or whichever is sooner done.
#pragma once
#include <cstdint>

#include "codec/lz4.h"
#include "image/compression_gain.h"
#include "image/format.h"

namespace dormouse::image {

enum class Compression : uint8_t { lz4, none, automatic };

// Used by one thread at a time.
class BlockCoder {
 public:
  explicit BlockCoder(Compression how) : how_(how) {}

  // Puts n <= kBlockPages pages to `to`, which has room for them as they are. Returns the bytes
  // written; *length is the block's entry in the chunk's table.
  uint32_t encode(const uint8_t* pages, uint32_t n, uint8_t* to, uint32_t* length);
  // What was encoded went to the disk itself, in that time.
  void wrote(uint64_t bytes, uint64_t ns) { gain_.wrote(bytes, ns); }

 private:
  uint32_t compress(const uint8_t* pages, uint32_t raw, uint8_t* to);

  const Compression how_;
  codec::Lz4State lz4_;
  CompressionGain gain_;
};

}  // namespace dormouse::image
