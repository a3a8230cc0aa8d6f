// Where the copy that counts of each pfn lies, while an image is written. Memory and work follow
// the pages that were put, never the size of the pfn space.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "codec/lz4.h"
#include "fault.h"
#include "image/chunk.h"
#include "image/page_map.h"

namespace dormouse::image {

// Runs as they are laid down: blocks of kMapBlockRuns of them.
class MapCoder {
 public:
  // Runs follow each other; one that goes on where the last ended becomes part of it.
  void add(const MapRun& run);
  // Codes whole blocks, and what is left over where `all`. Returns the runs coded.
  uint64_t code(codec::Lz4State& lz4, bool all, std::vector<uint8_t>* out);

 private:
  std::vector<MapRun> runs_;
};

// Flag of a class: the page was put, and is left out as the parent holds it so.
constexpr uint8_t kKept = 8;

struct PlacedPage {
  uint64_t pfn;
  uint32_t chunk;
  uint16_t slot;
  uint8_t page_class;
  uint8_t type;
};

class WriterMap {
 public:
  explicit WriterMap(uint64_t nr_pfns);
  ~WriterMap();
  WriterMap(const WriterMap&) = delete;
  WriterMap& operator=(const WriterMap&) = delete;
  bool allocated() const { return roots_ != nullptr; }

  // Sets the class the page had before. Thread-safe; the last call for a pfn wins. Fault:
  // NO_MEMORY.
  bool put(uint64_t desc, uint32_t chunk, uint16_t slot, uint8_t* before, Fault* fault);

  // First pfn from `from` on that is not here, or nr_pfns.
  uint64_t first_absent(uint64_t from) const;

  // The pages that were put and not kept, by ascending pfn; at most `most` steps of the walk a
  // call. Once no lane works any more. False at the end.
  template <typename Use>
  bool walk(uint64_t* cursor, uint64_t most, Use use);

 private:
  static constexpr uint64_t kLeafPages = 64;
  struct Leaf {
    std::atomic<uint64_t> pages[kLeafPages];
  };
  Leaf* leaf_of(uint64_t index, Fault* fault);
  void sort();

  const uint64_t nr_pfns_;
  std::atomic<Leaf*>* roots_ = nullptr;
  uint64_t n_roots_;
  mutable std::mutex lock_;
  std::vector<uint32_t> used_;  // leaves there are; ascending after sort()
  bool sorted_ = false;
};

// chunk in bits 0..31, slot 32..47, class 48..51, type 52..55; an absent page is all zero.
constexpr uint64_t pack_page(uint32_t chunk, uint16_t slot, uint64_t desc) {
  return chunk | uint64_t(slot) << 32 | uint64_t(desc_class(desc)) << 48 |
         uint64_t(desc_type(desc)) << 52;
}
constexpr PlacedPage unpack_page(uint64_t pfn, uint64_t packed) {
  return {pfn, uint32_t(packed), uint16_t(packed >> 32), uint8_t(packed >> 48 & 0xF),
          uint8_t(packed >> 52 & 0xF)};
}

template <typename Use>
bool WriterMap::walk(uint64_t* cursor, uint64_t most, Use use) {
  sort();
  for (uint64_t step = 0; step < most && *cursor < used_.size(); step++) {
    const uint64_t leaf = used_[(*cursor)++];
    for (uint64_t i = 0; i < kLeafPages; i++) {
      const uint64_t packed = roots_[leaf].load()->pages[i].load(std::memory_order_relaxed);
      const PlacedPage page = unpack_page(leaf * kLeafPages + i, packed);
      if (packed && !(page.page_class & kKept)) use(page);
    }
  }
  return *cursor < used_.size();
}

}  // namespace dormouse::image
