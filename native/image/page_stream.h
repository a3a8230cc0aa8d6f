// Pages of a domain as they go through a pipe: in the frames of dormouse's own stream, or as
// PAGE_DATA records of the libxc stream. Of a page that is put more than once the last counts.
#pragma once
#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "image/encode.h"
#include "image/lane.h"
#include "image/stream_output.h"
#include "image/writer.h"
#include "image/writer_map.h"

namespace dormouse::image {

// The head of every frame, as docs/xen-streams.md has it. Little-endian.
struct FrameHead {
  uint32_t magic;
  uint8_t kind;
  uint8_t flags;
  uint16_t head_size;
  uint32_t number;
  uint32_t body_size;
  uint64_t body_hash[2];
  uint64_t head_hash[2];  // over what is before it and the stream's id
};
static_assert(sizeof(FrameHead) == 48);
constexpr uint32_t kFrameMagic = 0x52464D44;  // "DMFR"
enum FrameKind : uint8_t { kFrameBegin = 1, kFramePages = 2, kFrameEnd = 3 };

enum class StreamFormat : uint8_t { frames = 0, libxc = 1 };

struct StreamSetup {
  int fd;
  StreamFormat format;
  uint64_t nr_pfns;
  uint32_t lanes;
  const uint8_t* id;  // 16 bytes
  uint32_t stall_ms;  // how long a reader may take nothing
};

class PageStream final : public Writer {
 public:
  // Null on a fault: NO_MEMORY.
  static std::shared_ptr<PageStream> create(const StreamSetup& setup, Fault* fault);

  // Writes frames or records that are each whole whatever other lanes write meanwhile. Pages
  // without a body may wait for more of their kind until the step ends.
  bool append(uint32_t lane, const uint64_t* descs, uint32_t n_pages, const uint8_t* bodies,
              uint32_t n_bodies, Fault* fault) override;
  bool end_step(uint32_t lane, Fault* fault) override;
  uint32_t lanes() const override { return uint32_t(lanes_.size()); }

  // Bytes as they are; faults as append.
  bool put_bytes(const uint8_t* bytes, uint64_t n, Fault* fault);
  // All that writes, or will, ends with CANCELLED.
  void cancel() { out_.cancel(); }
  // A frame of another kind.
  bool put_frame(uint8_t kind, const uint8_t* body, uint32_t n, Fault* fault);

  // Pages of that class as of now; those that came again count once.
  uint64_t count(uint8_t page_class) const;
  uint64_t written_bytes() const { return written_.load(std::memory_order_relaxed); }
  // ACCOUNTING_MISMATCH with the first pfn that was never put.
  bool check_complete(Fault* fault) const;

 private:
  struct LaneBuffers {
    BlockCoder coder{Compression::lz4};
    AlignedBytes chunk;
    uint64_t waiting[kMaxChunkPages];
    uint32_t n_waiting = 0;
  };
  explicit PageStream(const StreamSetup& setup);
  bool put(LaneBuffers& lane, PageRun pages, Fault* fault);
  bool put_chunk(LaneBuffers& lane, const PageRun& pages, Fault* fault);
  bool put_record(const PageRun& pages, Fault* fault);
  bool account(const PageRun& pages, Fault* fault);
  bool fail(Fault* fault);

  StreamOutput out_;
  const StreamFormat format_;
  const uint64_t nr_pfns_;
  uint8_t id_[16];
  std::vector<std::unique_ptr<LaneBuffers>> lanes_;
  WriterMap map_;
  std::array<std::atomic<int64_t>, kClasses> counts_ = {};
  std::atomic<uint64_t> written_{0};
  std::mutex output_lock_;
  uint32_t frames_ = 0;
  Fault fault_;
};

}  // namespace dormouse::image
