// The one Reader: an open file, its chunk table and page map, and a buffer a lane.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "image/lane.h"
#include "image/page_map.h"
#include "image/reader.h"

namespace dormouse::image {

struct ReaderSetup {
  int fd;  // duplicated
  const uint8_t* image_id;
  uint64_t nr_pfns;
  uint32_t lanes;
  bool has_parent;
  uint64_t chunks_end;
  const uint8_t* chunk_table;
  uint64_t n_chunks;
  const uint8_t* page_map;
  uint64_t page_map_bytes;
  uint64_t page_map_runs;
};

class ImageReader final : public Reader {
 public:
  // Checks chunk table and page map. Null on a fault: IMAGE_DAMAGED, IMAGE_READ_FAILED, NO_MEMORY.
  static std::shared_ptr<ImageReader> open(const ReaderSetup& setup, Fault* fault);
  ~ImageReader() override;

  uint64_t nr_pfns() const override { return map_.nr_pfns(); }
  uint32_t nr_chunks() const override { return uint32_t(chunks_.size()); }
  uint32_t lanes() const override { return uint32_t(lanes_.size() - 1); }
  bool check_chunk(uint32_t lane, uint32_t chunk, Fault* fault) override;
  bool read_chunk(uint32_t lane, uint32_t chunk, DecodedChunk* out, Fault* fault) override;
  bool is_current(uint32_t chunk, uint32_t slot, uint64_t pfn) const override;

  // The content of one page that counts; zeroes where its class has no body. Uses a lane of its
  // own; one thread at a time.
  bool read_page(uint64_t pfn, uint8_t* out, Fault* fault);

  const ReaderMap& map() const { return map_; }
  const std::vector<ChunkEntry>& chunks() const { return chunks_; }

 private:
  struct LaneBuffers {
    AlignedBytes stored, bodies;
    std::vector<uint64_t> descs;
    uint64_t loaded = ~0ull;         // chunk in `stored`, checked
    uint64_t decoded_block = ~0ull;  // of that chunk, in `bodies`
    ChunkView view;
  };

  ImageReader() = default;
  bool check_table(const ReaderSetup& setup, Fault* fault) const;
  bool load(LaneBuffers& lane, uint32_t chunk, Fault* fault);
  bool read_span(LaneBuffers& lane, const ChunkEntry& entry, Fault* fault);
  bool check_pages(const LaneBuffers& lane, uint32_t chunk, Fault* fault) const;
  bool damaged(uint32_t chunk, const std::string& what, Fault* fault) const;

  int fd_ = -1;
  uint8_t image_id_[16];
  bool has_parent_ = false;
  std::vector<ChunkEntry> chunks_;
  std::vector<uint32_t> current_;  // by chunk: how many of its pages the page map leads to
  ReaderMap map_;
  std::vector<LaneBuffers> lanes_;  // the last one is read_page's
};

}  // namespace dormouse::image
