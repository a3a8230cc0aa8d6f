#include "host/xen/writable_pages.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "host/host.h"

namespace dormouse::xen {
namespace {

constexpr uint64_t kChunkPages = 1024;

}  // namespace

void WritablePages::forget(uint64_t pfn) { chunks_.erase(pfn / kChunkPages); }

void WritablePages::unmap() { chunks_.clear(); }

// Mapped whole: pfns without a frame show another page.
std::shared_ptr<ForeignPages> WritablePages::map_chunk(uint64_t chunk, Fault* fault) {
  std::lock_guard<std::mutex> hold(lock_);
  const auto there = chunks_.find(chunk);
  if (there != chunks_.end()) return there->second;
  const uint64_t start = chunk * kChunkPages;
  const uint64_t end = std::min<uint64_t>(start + kChunkPages, frames_.size());
  std::vector<xen_pfn_t> list(frames_.begin() + long(start), frames_.begin() + long(end));
  const auto filler =
      std::find_if(list.begin(), list.end(), [](xen_pfn_t one) { return one != host::kNoMfn; });
  if (filler == list.end()) {
    fault->raise("INTERNAL", "mapping memory that was not populated");
    return nullptr;
  }
  std::replace(list.begin(), list.end(), xen_pfn_t(host::kNoMfn), xen_pfn_t(*filler));
  std::vector<int> errors(list.size());
  auto mapped = std::make_shared<ForeignPages>();
  if (!mapped->map(xen_, domid_, list.data(), list.size(), errors.data(), true)) {
    raise_errno(fault, "mapping memory to fill", domid_);
    return nullptr;
  }
  for (const int error : errors) {
    if (error == 0) continue;
    errno = error < 0 ? -error : error;
    raise_errno(fault, "mapping memory to fill", domid_);
    return nullptr;
  }
  return chunks_[chunk] = std::move(mapped);
}

// The place of a pfn's page; *last remembers the chunk looked up last.
uint8_t* WritablePages::page(uint64_t pfn, MappedChunk* last, Fault* fault) {
  if (pfn >= frames_.size() || frames_[pfn] == host::kNoMfn) {
    fault->pfn = pfn;
    fault->raise("IMAGE_DAMAGED", "pfn " + std::to_string(pfn) + " has a page but no frame");
    return nullptr;
  }
  const uint64_t chunk = pfn / kChunkPages;
  if (!last->pages || chunk != last->number) *last = {chunk, map_chunk(chunk, fault)};
  return last->pages ? last->pages->writable_data() + pfn % kChunkPages * host::kPageSize : nullptr;
}

bool WritablePages::copy_out(const uint64_t* pfns, uint32_t n, uint8_t* dst, Fault* fault) {
  MappedChunk last;
  for (uint32_t i = 0; i < n; ++i, dst += host::kPageSize) {
    const uint8_t* from = page(pfns[i], &last, fault);
    if (!from) return false;
    std::memcpy(dst, from, host::kPageSize);
  }
  return true;
}

bool WritablePages::copy_in(const uint64_t* pfns, uint32_t n, const uint8_t* src, Fault* fault) {
  MappedChunk last;
  for (uint32_t i = 0; i < n; ++i, src += host::kPageSize) {
    uint8_t* to = page(pfns[i], &last, fault);
    if (!to) return false;
    std::memcpy(to, src, host::kPageSize);
  }
  return true;
}

}  // namespace dormouse::xen
