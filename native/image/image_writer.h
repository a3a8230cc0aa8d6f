// The one Writer: lanes, chunk table, page map and the file behind them.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "image/lane.h"
#include "image/output_file.h"
#include "image/page_map.h"
#include "image/writer.h"

namespace dormouse::image {

struct WriterSetup {
  std::string path;
  const uint8_t* header;  // the first page, complete; the image id is read from it
  uint64_t nr_pfns;
  uint32_t lanes;
  bool has_parent;
  bool direct;
  bool unnamed;
};

class ImageWriter final : public Writer {
 public:
  // Null on a fault: those of OutputFile::create, and NO_MEMORY.
  static std::shared_ptr<ImageWriter> create(const WriterSetup& setup, Fault* fault);

  bool append(uint32_t lane, const uint64_t* descs, uint32_t n_pages, const uint8_t* bodies,
              uint32_t n_bodies, Fault* fault) override;
  uint32_t lanes() const override { return uint32_t(lanes_.size()); }

  // Pages of that class as of now.
  uint64_t count(uint8_t page_class) const;
  uint64_t stored_pages() const;
  uint64_t stored_bodies() const;
  // End of the chunks written so far, and what the lanes still hold.
  uint64_t stored_bytes() const;

  // Writes what the lanes hold. Fault ACCOUNTING_MISMATCH with the first pfn that was never put.
  bool finish(Fault* fault);
  // After finish(), in order: the tail of the file, whole pages at its end.
  const std::vector<ChunkEntry>& chunks() const { return table_.entries(); }
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

  const uint64_t nr_pfns_;
  const bool has_parent_;
  uint8_t image_id_[16];
  std::unique_ptr<OutputFile> file_;
  ChunkTable table_;
  WriterMap map_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  codec::Lz4State lz4_;
  AlignedBytes tail_;
  uint64_t tail_bytes_ = 0;
  std::atomic<bool> failed_{false};
  std::mutex fault_lock_;
  Fault fault_;
};

}  // namespace dormouse::image
