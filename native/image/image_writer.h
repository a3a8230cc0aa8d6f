// The one Writer: lanes, chunk table, page map and the file behind them.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "image/content_root.h"
#include "image/encode.h"
#include "image/image_reader.h"
#include "image/lane.h"
#include "image/output_file.h"
#include "image/writer.h"
#include "image/writer_map.h"

namespace dormouse::image {

struct WriterSetup {
  OutputPlace place;
  const uint8_t* header;  // the first page, complete
  uint64_t nr_pfns;
  uint32_t lanes;
  bool page_hashes;
  bool digests;
  // Of an increment: pfns below this may be absent, as they are in the parent. Else 0.
  uint64_t parent_pfns;
  // The parent, where it is open; then pages may be compared with it, and the map may be a full
  // one.
  std::shared_ptr<ImageReader> parent;
  bool full_map;
  bool skip_unchanged;  // the parent has all its page hashes
  bool complete;        // every pfn must be put, be it only to be left out
  Compression compression;
  DeltaUse deltas;  // with pages only where page_hashes
};

class ImageWriter final : public Writer {
 public:
  // Null on a fault: those of OutputFile::create, and NO_MEMORY.
  static std::shared_ptr<ImageWriter> create(const WriterSetup& setup, Fault* fault);

  bool append(uint32_t lane, const uint64_t* descs, uint32_t n_pages, const uint8_t* bodies,
              uint32_t n_bodies, Fault* fault) override;
  // A chunk of another image as it is; each pfn is put once. Faults: as append.
  bool take(uint32_t lane, const StoredChunk& chunk, Fault* fault);
  uint32_t lanes() const override { return uint32_t(lanes_.size()); }

  // Pages of that class as of now; with kKept those left out.
  uint64_t count(uint8_t page_class) const;
  uint64_t stored_pages() const;
  // End of the chunks written so far, and what the lanes still hold.
  uint64_t stored_bytes() const;

  // Of the chunks that were taken, the bytes that the file shares with the other images.
  uint64_t shared_bytes() const { return file_->shared_bytes(); }

  // Writes what the lanes hold. Fault ACCOUNTING_MISMATCH with the first pfn that was never put.
  bool finish(Fault* fault);
  // After finish(), in order: the tail of the file, whole pages at its end.
  const std::vector<ChunkEntry>& chunks() const { return table_.entries(); }
  const std::vector<ChunkNotes>& notes() const { return table_.notes(); }
  // Whether the pages, and the parent's, are hashed, and all is written.
  bool has_content_root() const {
    uint64_t pages = 0;
    for (const ChunkEntry& entry : chunks()) pages += entry.pages;
    return table_.page_hashes() && pages == stored_pages() && (!parent_ || parent_->has_hashes());
  }
  // The content root, where pages are hashed: `root` is the parent's, or zero.
  void content_root(ContentRoot* root);
  // Bit i: some delta rests on an image that is i + 1 older.
  uint32_t delta_ages() const;
  bool encode_map(std::vector<uint8_t>* out, uint64_t* n_runs);
  bool write_tail(const uint8_t* bytes, uint64_t n, Fault* fault);
  bool publish(Fault* fault);

  OutputFile& file() { return *file_; }

 private:
  explicit ImageWriter(const WriterSetup& setup);
  bool start(const WriterSetup& setup, Fault* fault);
  bool fail(Fault* fault);
  bool failed(Fault* fault);
  bool flush_tail(Fault* fault);
  bool append_changed(Lane& lane, const PageRun& pages, Fault* fault);
  void fill_gap(uint64_t first, uint64_t end);

  const uint64_t nr_pfns_;
  const uint64_t parent_pfns_;
  const std::shared_ptr<ImageReader> parent_;
  const bool full_map_, skip_unchanged_, complete_;
  std::unique_ptr<OutputFile> file_;
  ChunkTable table_;
  WriterMap map_;
  const DeltaUse deltas_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  codec::Lz4State lz4_;
  MapCoder coder_;
  std::vector<uint16_t> ancestor_;  // of a full map: by the parent's source, its number here
  uint64_t map_cursor_ = 0, map_next_ = 0;
  AlignedBytes tail_;
  uint64_t tail_bytes_ = 0;
  std::atomic<bool> failed_{false};
  std::mutex fault_lock_;
  Fault fault_;
};

}  // namespace dormouse::image
