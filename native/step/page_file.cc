#include "step/page_file.h"

#include <algorithm>

#include "host/host.h"

namespace dormouse::step {

namespace {
constexpr uint64_t kLimeHeaderBytes = 32;
constexpr uint64_t kLimeMagic = 0x4C694D45;
}  // namespace

PageFile::PageFile(std::shared_ptr<image::ImageReader> reader,
                   std::shared_ptr<image::OutputFile> file, const PageFilePlan& plan)
    : reader_(std::move(reader)), file_(std::move(file)), base_(plan.base) {
  const image::ReaderMap& map = reader_->map();
  bytes_ = plan.packed ? 0 : map.nr_pfns() * host::kPageSize;
  for (size_t i = 0; plan.packed && i < map.runs().size(); ++i) {
    const uint64_t first = map.runs()[i].first, end = first + map.count_of(i);
    const bool kept = image::class_has_content(map.runs()[i].page_class);
    if (kept && plan.lime) {
      if (ranges_.empty() || ranges_.back().end != first) {
        ranges_.push_back({base_ + bytes_, first, first});
        bytes_ += kLimeHeaderBytes;
      }
      ranges_.back().end = end;
    }
    before_.push_back(bytes_);
    if (kept) bytes_ += (end - first) * host::kPageSize;
  }
  for (uint64_t k = 0; k < plan.leaves.size(); ++k) leaf_at_.emplace(plan.leaves[k], k);
}

uint64_t PageFile::place_of(uint64_t pfn) const {
  if (before_.empty()) return base_ + pfn * host::kPageSize;
  const image::ReaderMap& map = reader_->map();
  const size_t run = map.find(pfn);
  return base_ + before_[run] + (pfn - map.runs()[run].first) * host::kPageSize;
}

// Magic and version in one word, the first and the last byte of the range, and a word of zeroes.
bool PageFile::put_headers(Fault* fault) {
  for (const Range& range : ranges_) {
    const uint64_t words[] = {kLimeMagic | 1ull << 32, range.first * host::kPageSize,
                              range.end * host::kPageSize - 1, 0};
    static_assert(sizeof words == kLimeHeaderBytes);
    if (!file_->write_at(range.at, reinterpret_cast<const uint8_t*>(words), sizeof words, fault))
      return false;
  }
  return true;
}

bool PageFile::put_leaf(uint64_t pfn, uint64_t leaf, Fault* fault) {
  constexpr uint64_t kEntries = host::kPageSize / sizeof(uint64_t);
  alignas(host::kPageSize) uint64_t entries[kEntries];
  const image::ReaderMap& map = reader_->map();
  for (uint64_t i = 0; i < kEntries; ++i) {
    const uint64_t of = leaf * kEntries + i;
    const bool there =
        of < map.nr_pfns() && image::class_has_content(map.runs()[map.find(of)].page_class);
    entries[i] = there ? of : ~0ull;
  }
  return file_->write_at(place_of(pfn), reinterpret_cast<const uint8_t*>(entries), sizeof entries,
                         fault);
}

// Pages that are neighbours in the chunk and in the file go at once.
bool PageFile::put_chunk(uint32_t lane, uint32_t index, Fault* fault) {
  image::DecodedChunk chunk;
  if (!reader_->read_chunk(lane, index, &chunk, fault)) return false;
  uint64_t first = 0, count = 0, place = 0;  // of what is to be written
  const auto flush = [&] {
    const uint64_t n = count;
    count = 0;
    return n == 0 || file_->write_at(place, chunk.bodies + first * host::kPageSize,
                                     n * host::kPageSize, fault);
  };
  for (uint32_t slot = 0; slot < chunk.n_pages; ++slot) {
    const uint64_t pfn = image::desc_pfn(chunk.descs[slot]);
    if (!reader_->is_current(index, slot, pfn)) continue;
    const auto leaf = leaf_at_.find(pfn);
    if (leaf != leaf_at_.end()) {
      if (!put_leaf(pfn, leaf->second, fault)) return false;
      continue;
    }
    const uint64_t to = place_of(pfn);
    const bool goes_on = first + count == slot && place + count * host::kPageSize == to;
    if (!goes_on || count == 0) {
      if (!flush()) return false;
      first = slot;
      place = to;
    }
    ++count;
  }
  return flush();
}

bool PageFile::put(uint32_t lane, uint32_t first, uint32_t count, Fault* fault) {
  for (uint32_t i = first; i < first + count; ++i)
    if (!put_chunk(lane, i, fault)) return false;
  return true;
}

}  // namespace dormouse::step
