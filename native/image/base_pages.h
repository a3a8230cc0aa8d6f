// The pages that the images of a session stored whole last, so that the next ones can store what
// changed of them. Bounded, whatever the guest's size. An entry says which image it is in; whether
// that image exists is for whoever writes the next one to say.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "codec/delta.h"
#include "fault.h"
#include "image/aligned_bytes.h"
#include "image/format.h"

namespace dormouse::image {

// An image that deltas may rest on, by the number it was written under; `age`: how many images of
// the chain it is older.
struct BaseImage {
  uint32_t image;
  uint16_t age;
};

class BasePages {
 public:
  // Takes memory for so many pages as they come. Null: NO_MEMORY.
  static std::shared_ptr<BasePages> create(uint64_t most_pages, Fault* fault);

  // What makes `body` of what is kept of that page, class and type, if one of these images holds
  // it; 0 if none does or it does not fit. Thread-safe.
  uint32_t code(codec::DeltaState& codec, const std::vector<BaseImage>& images, uint64_t desc,
                const uint8_t* body, uint8_t* out, uint32_t capacity, DeltaBase* base);
  // The page was stored whole there. Thread-safe.
  void keep(uint64_t desc, const uint8_t* body, uint32_t image, uint32_t chunk, uint16_t slot);

 private:
  // A page is in one of so many places, so that no index is needed.
  static constexpr uint64_t kWays = 8;
  static constexpr uint64_t kLocks = 64;
  struct Entry {
    uint64_t desc = 0;  // 0: none
    uint32_t image, chunk;
    uint16_t slot;
    uint64_t used = 0;  // when, by the set's clock
  };
  struct Set {
    std::array<Entry, kWays> entries;
    uint64_t clock = 0;
  };

  explicit BasePages(uint64_t most_pages) : sets_((most_pages + kWays - 1) / kWays) {}
  uint64_t set_of(uint64_t desc) const;
  uint8_t* page_at(uint64_t set, size_t way) const {
    return pages_.get() + (set * kWays + way) * kPageBytes;
  }

  std::vector<Set> sets_;
  AlignedBytes pages_;
  std::array<std::mutex, kLocks> locks_;
};

}  // namespace dormouse::image
