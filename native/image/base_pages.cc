#include "image/base_pages.h"

#include <algorithm>
#include <cstring>

#include "image/chunk.h"

namespace dormouse::image {

std::shared_ptr<BasePages> BasePages::create(uint64_t most_pages, Fault* fault) {
  std::shared_ptr<BasePages> made(new BasePages(most_pages));
  made->pages_ = allocate_aligned(made->sets_.size() * kWays * kPageBytes);
  if (made->pages_) return made;
  fault->raise("NO_MEMORY", "no memory for the pages that deltas rest on");
  return nullptr;
}

uint64_t BasePages::set_of(uint64_t desc) const { return desc_pfn(desc) % sets_.size(); }

uint32_t BasePages::code(codec::DeltaState& codec, const std::vector<BaseImage>& images,
                         uint64_t desc, const uint8_t* body, uint8_t* out, uint32_t capacity,
                         DeltaBase* base) {
  const uint64_t at = set_of(desc);
  Set& set = sets_[at];
  std::lock_guard<std::mutex> hold(locks_[at % kLocks]);
  const auto entry = std::find_if(set.entries.begin(), set.entries.end(),
                                  [desc](const Entry& one) { return one.desc == desc; });
  if (entry == set.entries.end()) return 0;
  const auto image = std::find_if(images.begin(), images.end(),
                                  [&](const BaseImage& one) { return one.image == entry->image; });
  if (image == images.end()) return 0;
  const uint8_t* const kept = page_at(at, size_t(entry - set.entries.begin()));
  const uint32_t size = codec::delta_compress(codec, body, kept, kPageBytes, out, capacity);
  if (size == 0) return 0;
  entry->used = ++set.clock;
  *base = {entry->chunk, entry->slot, image->age};
  return size;
}

void BasePages::keep(uint64_t desc, const uint8_t* body, uint32_t image, uint32_t chunk,
                     uint16_t slot) {
  const uint64_t at = set_of(desc);
  Set& set = sets_[at];
  std::lock_guard<std::mutex> hold(locks_[at % kLocks]);
  auto entry = std::find_if(set.entries.begin(), set.entries.end(), [desc](const Entry& one) {
    return desc_pfn(one.desc) == desc_pfn(desc) && one.desc != 0;
  });
  if (entry == set.entries.end())
    entry = std::min_element(set.entries.begin(), set.entries.end(),
                             [](const Entry& a, const Entry& b) { return a.used < b.used; });
  *entry = {desc, image, chunk, slot, ++set.clock};
  std::memcpy(page_at(at, size_t(entry - set.entries.begin())), body, kPageBytes);
}

}  // namespace dormouse::image
