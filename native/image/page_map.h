// Where the copy that counts of each pfn lies. While writing: eight bytes a page, set by any lane.
// In the file and while reading: runs of consecutive pfns at consecutive slots of one chunk.
#pragma once
#include <atomic>
#include <cstdint>
#include <vector>

#include "codec/lz4.h"
#include "fault.h"
#include "image/chunk.h"

namespace dormouse::image {

class WriterMap {
 public:
  explicit WriterMap(uint64_t nr_pfns);
  ~WriterMap();
  WriterMap(const WriterMap&) = delete;
  WriterMap& operator=(const WriterMap&) = delete;
  bool allocated() const { return entries_ != nullptr; }

  // Returns the class the page had before. Thread-safe; the last call for a pfn wins.
  uint8_t put(uint64_t desc, uint32_t chunk, uint16_t slot);

  // First pfn never put, or nr_pfns.
  uint64_t first_absent() const;

  // Appends blocks of the coded map to `out`, from where the last call ended, and counts their
  // runs. One call covers at most a million pages. False when all has been coded.
  bool encode_some(codec::Lz4State& lz4, std::vector<uint8_t>* out, uint64_t* n_runs);

 private:
  MapRun run_at(uint64_t pfn) const;

  uint64_t nr_pfns_;
  std::atomic<uint64_t>* entries_ = nullptr;
  uint64_t cursor_ = 0;
};

// A run as the reader keeps it; it ends where the next begins.
struct PlacedRun {
  uint32_t first;
  uint32_t chunk;
  uint16_t slot;
  uint8_t page_class;
  uint8_t type;
};
static_assert(sizeof(PlacedRun) == 12);

class ReaderMap {
 public:
  // Decodes and checks the map: it must cover exactly [0, nr_pfns), in exactly n_runs runs, and
  // lead to chunks and slots that exist. Allocates 12 bytes a run, after the blocks' own sizes have
  // confirmed n_runs. Fault: IMAGE_DAMAGED.
  bool decode(const uint8_t* bytes, uint64_t n, uint64_t n_runs, uint64_t nr_pfns, bool has_parent,
              const std::vector<ChunkEntry>& chunks, Fault* fault);

  const std::vector<PlacedRun>& runs() const { return runs_; }
  uint64_t nr_pfns() const { return nr_pfns_; }
  // Index of the run that holds pfn (< nr_pfns); quick when close to the last one asked by this
  // thread.
  size_t find(uint64_t pfn) const;
  uint64_t end_of(size_t run) const {
    return run + 1 < runs_.size() ? runs_[run + 1].first : nr_pfns_;
  }

 private:
  bool check_sizes(const uint8_t* bytes, uint64_t n, uint64_t n_runs, Fault* fault) const;
  bool add(const MapRun& run, uint64_t* next, bool has_parent,
           const std::vector<ChunkEntry>& chunks, Fault* fault);

  uint64_t nr_pfns_ = 0;
  std::vector<PlacedRun> runs_;
};

}  // namespace dormouse::image
