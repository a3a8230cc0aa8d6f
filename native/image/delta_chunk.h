// The deltas of one lane on their way into a chunk.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "image/aligned_bytes.h"
#include "image/base_pages.h"
#include "image/chunk.h"
#include "pfn/page_scan.h"

namespace dormouse::image {

// How an image stores deltas.
struct DeltaUse {
  std::shared_ptr<BasePages> pages;  // null: it stores none
  uint32_t image = 0;                // its own number
  std::vector<BaseImage> images;     // that deltas may rest on
};

class DeltaChunk {
 public:
  // A delta that is not worth more is none.
  static constexpr uint32_t kMostBytes = kPageBytes / 2;
  static constexpr uint32_t kMaxSpan = uint32_t(
      whole_pages(sizeof(ChunkHeader) +
                  kMaxChunkBodies * (kMostBytes + 4 + sizeof(ChunkRun) + sizeof(DeltaBase))));

  explicit DeltaChunk(const DeltaUse& use) : use_(use) {}
  bool allocate();

  // Whether the page is here now as a delta of at most `most` bytes. Not where it is full.
  bool add(uint64_t desc, const uint8_t* body, uint32_t most);
  // The page was stored whole.
  void keep(uint64_t desc, const uint8_t* body, uint32_t chunk, uint16_t slot) {
    use_.pages->keep(desc, body, use_.image, chunk, slot);
  }

  uint32_t pages() const { return pages_; }
  bool full() const { return pages_ == kMaxChunkBodies; }
  // The chunk's number, given by whoever sees the first page in.
  uint32_t number = 0;
  std::vector<pfn::Hash128> page_hashes;  // by slot
  // Of the chunk as it is now.
  uint32_t span() const;
  // The whole chunk, so many bytes; then it is empty again.
  ChunkHeader close(uint8_t* out);
  // Bit i: some delta rests on an image that is i + 1 older.
  uint32_t ages() const { return ages_.load(std::memory_order_relaxed); }

 private:
  const DeltaUse& use_;
  codec::DeltaState codec_;
  AlignedBytes payload_;
  uint32_t payload_bytes_ = 0, pages_ = 0, runs_ = 0;
  uint32_t lengths_[kMaxChunkBodies];
  ChunkRun run_[kMaxChunkBodies];
  DeltaBase bases_[kMaxChunkBodies];
  std::atomic<uint32_t> ages_{0};
};

}  // namespace dormouse::image
