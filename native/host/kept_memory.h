// A domain's memory with every frame mapped once, read-only, and kept. What moved since is found by
// comparing with the guest's own p2m (PV). Of a translated domain (PVH, HVM) the count of pages
// tells that frames came, and its dirty log, where there is one, which.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "host/frame_source.h"
#include "host/hole_map.h"
#include "host/host.h"

namespace dormouse::host {

class KeptMemory : public DomainMemory {
 public:
  explicit KeptMemory(std::unique_ptr<FrameSource> source) : source_(std::move(source)) {}
  // Once, before anything else.
  bool map_all(Fault* fault);

  // Of a running guest: brings all up to date and maps what came. No other call may be under way,
  // and pointers from maps() are to be fetched again. `logged`: a dirty log has been on since all
  // was mapped, and each reading of it went to follow_log(). Without one this may map everything
  // anew.
  bool refresh(bool logged, Fault* fault);
  // The same of a guest that stands still, by the least work: with a log what came is mapped when
  // it is read. follow_log() is called next then.
  bool catch_up(bool logged, Fault* fault);

  uint64_t nr_pfns() const override { return nr_pfns_; }

  FrameMaps maps() const override;
  bool query(uint64_t first, uint32_t n, uint64_t* entries, Fault* fault) override;
  uint64_t next_present(uint64_t pfn) const override;
  bool knows_holes() const override { return source_->translated() && holes_.trusted(); }
  bool follow_log(uint8_t* bitmap, uint64_t nr_pfns, Fault* fault) override;
  bool copy_out(const uint64_t* pfns, const uint64_t* entries, uint32_t n, uint8_t* dst,
                Fault* fault) override;
  const uint8_t* peek(uint64_t pfn, uint64_t entry) override;
  bool copy_in(const uint64_t* pfns, uint32_t n, const uint8_t* src, Fault* fault) override;
  bool populate_gives_zeroes() const override { return false; }

 private:
  // A stretch of the pfn space in one mapping, which begins at its first populated pfn. Pfns
  // without a frame inside it show another page of the chunk and are never read.
  struct Chunk {
    std::unique_ptr<Mapping> pages;
    uint64_t first = 0;
    uint32_t alone = 0;   // pfns of it that came or moved since
    uint32_t mapped = 0;  // pfns of it whose frame is mapped, here or alone
  };
  // A page that came since its chunk was mapped, in a mapping that it may share with others.
  struct Alone {
    std::shared_ptr<Mapping> pages;
    const uint8_t* at = nullptr;
  };
  enum State : uint8_t { kUnmapped, kInChunk, kAlone };

  bool resize(uint64_t nr_pfns, Fault* fault);
  bool map_chunks(Fault* fault);
  bool find_populated(Fault* fault);
  void unmap_chunk(uint64_t index);
  bool map_chunk(uint64_t index, Fault* fault);
  bool map_crowded(Fault* fault);
  bool map_steady(Fault* fault);
  void unmap_all();
  bool all_is_mapped(bool* all, Fault* fault);
  void follow_leaves(const uint8_t* bitmap, uint64_t nr_pfns);
  void add_moved(uint8_t* bitmap, uint64_t nr_pfns);
  bool drop_logged(const uint8_t* bitmap, uint64_t nr_pfns, Fault* fault);
  void follow_p2m(uint64_t first, uint64_t n);
  void drop_page(uint64_t pfn);
  uint64_t frame_of(uint64_t pfn) const { return source_->translated() ? pfn : frames_[pfn]; }
  void map_missing(const uint64_t* pfns, uint32_t n);
  const uint8_t* page(uint64_t pfn);

  std::unique_ptr<FrameSource> source_;
  uint64_t nr_pfns_ = 0;
  // Pfns whose frame is mapped. Of those frames none is freed, and the source counts them until
  // they are unmapped: while a translated domain has as many pages as this, it has no others.
  uint64_t nr_mapped_ = 0;
  std::vector<uint64_t> frames_;              // private p2m (PV): what is mapped at each pfn
  std::vector<std::atomic<uint64_t>> moved_;  // bit for each pfn whose frame in it changed
  std::vector<uint8_t> states_;
  HoleMap holes_;
  std::vector<Chunk> chunks_;
  std::mutex alone_lock_;
  std::unordered_map<uint64_t, Alone> alone_;
};

}  // namespace dormouse::host
