// Where the copy that counts of each pfn lies, as an image has it: runs of consecutive pfns at
// consecutive slots of one chunk.
#pragma once
#include <cstdint>
#include <vector>

#include "codec/lz4.h"
#include "fault.h"
#include "image/chunk.h"

namespace dormouse::image {

// The chunk of a page that has none: its class says all of it.
constexpr uint32_t kNoChunk = ~0u;

// A run as the reader keeps it; it ends where the next begins. Class absent: as in the parent.
struct PlacedRun {
  uint32_t first;
  uint32_t chunk;
  uint16_t slot;
  uint8_t page_class;
  uint8_t type;
};
static_assert(sizeof(PlacedRun) == 12);

// One file that chunks are in: its number of chunks, and the number of its first one.
struct MapSource {
  uint32_t first_chunk;
  const std::vector<ChunkEntry>* chunks;
};

// What a coded map is checked against before it is believed.
struct MapClaims {
  uint64_t n_runs;
  uint64_t nr_pfns;
  bool sparse;  // runs of class absent are possible
  bool newer;   // of a newer minor version
  // By source number of the runs; 0 is the file itself.
  const std::vector<MapSource>* sources;
};

class ReaderMap {
 public:
  // Decodes and checks the map: it must cover exactly [0, nr_pfns), in exactly n_runs runs, and
  // lead to chunks and slots that exist. Allocates 12 bytes a run, after the blocks' own sizes have
  // confirmed n_runs. Faults: IMAGE_DAMAGED, NO_MEMORY.
  bool decode(const uint8_t* bytes, uint64_t n, const MapClaims& claims, Fault* fault);

  // Pages by class as the file itself has them: what an increment leaves out, or takes from another
  // file, counts as sameAsParent.
  const uint64_t* own_counts() const { return own_counts_; }

  // Whether all that is absent here can be in the next older map, of that many pfns; 0: there is
  // none. IMAGE_DAMAGED.
  bool rests_on(uint64_t nr_pfns, Fault* fault) const;
  // This map on top of an older one: what is absent here is as there.
  void lay_over(const ReaderMap& older);

  const std::vector<PlacedRun>& runs() const { return runs_; }
  std::vector<PlacedRun>& runs() { return runs_; }
  uint64_t nr_pfns() const { return nr_pfns_; }
  // Index of the run that holds pfn (< nr_pfns); quick when close to the last one asked by this
  // thread.
  size_t find(uint64_t pfn) const;
  uint64_t end_of(size_t run) const {
    return run + 1 < runs_.size() ? runs_[run + 1].first : nr_pfns_;
  }
  uint64_t count_of(size_t run) const { return end_of(run) - runs_[run].first; }

 private:
  bool check_sizes(const uint8_t* bytes, uint64_t n, uint64_t n_runs, Fault* fault) const;
  bool add(const MapRun& run, uint64_t* next, const MapClaims& claims, Fault* fault);

  uint64_t nr_pfns_ = 0;
  uint64_t own_counts_[kClasses] = {};
  std::vector<PlacedRun> runs_;
};

}  // namespace dormouse::image
