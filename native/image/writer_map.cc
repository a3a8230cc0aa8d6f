#include "image/writer_map.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

namespace dormouse::image {

namespace {

bool continues(const MapRun& last, const MapRun& next) {
  const bool same = last.page_class == next.page_class && last.type == next.type &&
                    last.source == next.source && last.chunk == next.chunk;
  const uint32_t slot = class_has_body(next.page_class) ? last.slot + last.count : 0;
  return same && next.slot == slot && uint64_t(last.count) + next.count <= kMaxRunPages;
}

void code_block(codec::Lz4State& lz4, const MapRun* runs, size_t n, std::vector<uint8_t>* out) {
  const uint32_t raw = uint32_t(n * sizeof(MapRun));
  const auto* from = reinterpret_cast<const uint8_t*>(runs);
  const size_t at = out->size();
  out->resize(at + sizeof(MapBlockHeader) + raw);
  uint8_t* body = out->data() + at + sizeof(MapBlockHeader);
  const uint32_t size = codec::lz4_compress(lz4, from, raw, body, raw - 1, 1);
  if (!size) std::memcpy(body, from, raw);
  const MapBlockHeader header = {size ? size : raw | kStoredFlag, raw};
  std::memcpy(out->data() + at, &header, sizeof header);
  out->resize(at + sizeof header + (size ? size : raw));
}

}  // namespace

void MapCoder::add(const MapRun& run) {
  if (!runs_.empty() && continues(runs_.back(), run))
    runs_.back().count += run.count;
  else
    runs_.push_back(run);
}

uint64_t MapCoder::code(codec::Lz4State& lz4, bool all, std::vector<uint8_t>* out) {
  // The last run may still grow.
  const size_t ready = all ? runs_.size() : runs_.size() - !runs_.empty();
  const size_t n = all ? ready : ready / kMapBlockRuns * kMapBlockRuns;
  for (size_t at = 0; at < n; at += kMapBlockRuns)
    code_block(lz4, &runs_[at], std::min<size_t>(kMapBlockRuns, n - at), out);
  runs_.erase(runs_.begin(), runs_.begin() + ptrdiff_t(n));
  return n;
}

WriterMap::WriterMap(uint64_t nr_pfns)
    : nr_pfns_(nr_pfns), n_roots_((nr_pfns + kLeafPages - 1) / kLeafPages) {
  void* at = mmap(nullptr, n_roots_ * sizeof *roots_, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at != MAP_FAILED) roots_ = static_cast<std::atomic<Leaf*>*>(at);
}

WriterMap::~WriterMap() {
  if (!roots_) return;
  for (const uint32_t leaf : used_) delete roots_[leaf].load();
  munmap(static_cast<void*>(roots_), n_roots_ * sizeof *roots_);
}

WriterMap::Leaf* WriterMap::leaf_of(uint64_t index, Fault* fault) {
  Leaf* leaf = roots_[index].load(std::memory_order_acquire);
  if (leaf) return leaf;
  std::lock_guard<std::mutex> hold(lock_);
  leaf = roots_[index].load(std::memory_order_acquire);
  if (leaf) return leaf;
  leaf = new (std::nothrow) Leaf();
  if (!leaf) {
    fault->raise("NO_MEMORY", "no memory for the page map");
    return nullptr;
  }
  used_.push_back(uint32_t(index));
  sorted_ = false;
  roots_[index].store(leaf, std::memory_order_release);
  return leaf;
}

bool WriterMap::put(uint64_t desc, uint32_t chunk, uint16_t slot, uint8_t* before, Fault* fault) {
  const uint64_t pfn = desc_pfn(desc);
  Leaf* leaf = leaf_of(pfn / kLeafPages, fault);
  if (!leaf) return false;
  const uint64_t was = leaf->pages[pfn % kLeafPages].exchange(pack_page(chunk, slot, desc));
  *before = unpack_page(pfn, was).page_class;
  return true;
}

uint64_t WriterMap::first_absent(uint64_t from) const {
  for (uint64_t pfn = from; pfn < nr_pfns_; pfn++) {
    const Leaf* leaf = roots_[pfn / kLeafPages].load(std::memory_order_acquire);
    if (!leaf || leaf->pages[pfn % kLeafPages].load(std::memory_order_relaxed) == 0) return pfn;
  }
  return nr_pfns_;
}

void WriterMap::sort() {
  std::lock_guard<std::mutex> hold(lock_);
  if (!sorted_) std::sort(used_.begin(), used_.end());
  sorted_ = true;
}

}  // namespace dormouse::image
