// One lane of a writer: encodes pages into chunks and chunks into a segment of a few MiB. A full
// one is written beside the lane, which goes on with a second. Used by one thread at a time.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "fault.h"
#include "image/aligned_bytes.h"
#include "image/block_coder.h"
#include "image/chunk.h"
#include "image/delta_chunk.h"
#include "image/output_file.h"
#include "image/reader.h"
#include "image/writer_map.h"
#include "pfn/page_scan.h"
#include "pfn/sha256.h"

namespace dormouse::image {

// What is kept of a chunk beside its entry, where the image is to have it.
struct ChunkNotes {
  std::vector<pfn::Hash128> page_hashes;  // by slot
  pfn::Sha256 digest = {};                // of the span
};

class ChunkTable {
 public:
  ChunkTable(bool page_hashes, bool digests) : page_hashes_(page_hashes), digests_(digests) {}
  bool page_hashes() const { return page_hashes_; }
  bool digests() const { return digests_; }

  uint32_t next_number() { return next_.fetch_add(1); }
  void put(uint32_t chunk, const ChunkEntry& entry, ChunkNotes notes);
  // Once no lane works any more.
  const std::vector<ChunkEntry>& entries() const { return entries_; }
  const std::vector<ChunkNotes>& notes() const { return notes_; }

 private:
  const bool page_hashes_, digests_;
  std::atomic<uint32_t> next_{0};
  std::mutex lock_;
  std::vector<ChunkEntry> entries_;
  std::vector<ChunkNotes> notes_;
};

class Lane {
 public:
  static constexpr uint64_t kSegmentBytes = 4ull << 20;

  // With deltas where `deltas` has pages for them to rest on; the table then takes page hashes.
  Lane(OutputFile& file, ChunkTable& table, WriterMap& map, Compression compression,
       const DeltaUse& deltas);
  ~Lane();
  bool allocate();

  // Arguments were validated by the writer.
  bool append(const uint64_t* descs, uint32_t n_pages, const uint8_t* bodies, Fault* fault);
  // A chunk of another image, as it is.
  bool take(const StoredChunk& chunk, Fault* fault);
  // The page is as in the parent, whatever was put of it before.
  bool keep(uint64_t desc, Fault* fault);
  // Closes the open chunk and writes what is buffered.
  bool flush(Fault* fault);

  // Pages by class (kept ones by class | kKept) put through this lane less those it superseded:
  // sums over lanes are the truth.
  int64_t counted(uint8_t page_class) const { return counts_[page_class].load(); }
  // Pages with a body, superseded ones included.
  uint64_t stored_pages() const { return total_pages_.load(); }
  uint64_t pending_bytes() const { return pending_.load(); }
  // As DeltaChunk::ages().
  uint32_t delta_ages() const { return deltas_ ? deltas_->ages() : 0; }

 private:
  struct Closed {
    uint32_t chunk;
    ChunkEntry entry;  // offset within the segment
    ChunkNotes notes;
  };

  bool make_room(Fault* fault);
  uint32_t worth_bytes() const;
  bool place_delta(uint64_t desc, Fault* fault);
  bool close_deltas(Fault* fault);
  void stage();
  // The chunk of that header at `start` of the segment is whole.
  bool seal(const ChunkHeader& h, uint32_t number, uint64_t start, ChunkNotes notes, Fault* fault);
  void open_chunk();
  bool close_chunk(Fault* fault);
  bool add_page(uint64_t desc, Fault* fault);
  bool place(uint64_t desc, uint32_t chunk, uint16_t slot, Fault* fault);
  void add_body(const uint8_t* body);
  void encode_block(const uint8_t* pages, uint32_t n);
  // `beside`: on a thread of its own, as there is more to encode meanwhile.
  bool write_segment(bool beside, Fault* fault);
  // Waits for the segment under way; its fault is the lane's.
  bool finish_write(Fault* fault);

  OutputFile& file_;
  ChunkTable& table_;
  WriterMap& map_;
  BlockCoder coder_;
  std::unique_ptr<DeltaChunk> deltas_;
  uint64_t coded_pages_ = 0, coded_bytes_ = 0;  // of blocks
  AlignedBytes segment_, staging_, written_;
  std::thread writing_;  // writes written_
  Fault write_fault_;
  uint64_t writing_bytes_ = 0, writing_ns_ = 0;  // 0 where the page cache took them
  std::vector<Closed> closed_;

  uint64_t at_ = 0;  // end of what the segment holds
  bool open_ = false;
  uint64_t start_ = 0;  // of the open chunk
  uint32_t number_ = 0;
  uint32_t pages_ = 0, blocks_ = 0, runs_ = 0;
  uint32_t lengths_[kMaxChunkBlocks];
  ChunkRun run_[kMaxChunkBodies];
  ChunkNotes notes_;
  const uint8_t* direct_ = nullptr;  // bodies of this append not yet encoded
  uint32_t direct_pages_ = 0;
  uint32_t staged_pages_ = 0;  // bodies of earlier appends not yet encoded

  std::atomic<int64_t> counts_[kClasses] = {};
  std::atomic<uint64_t> total_pages_{0}, pending_{0};
};

}  // namespace dormouse::image
