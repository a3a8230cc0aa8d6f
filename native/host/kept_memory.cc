#include "host/kept_memory.h"

#include <algorithm>
#include <cstring>
#include <string>

namespace dormouse::host {
namespace {

constexpr uint64_t kChunkPages = 4096;
constexpr uint32_t kBatch = 1024;     // a query's limit
constexpr uint32_t kAloneLimit = 64;  // pages mapped alone before their chunk is made anew
constexpr int kScans = 3;             // for which the count of pages may go on changing
constexpr uint64_t kLeafEntries = 512;
constexpr uint64_t kUnknown = ~0ull;
// Above this a pfn space is not believed: 16 TiB.
constexpr uint64_t kNrPfnsCap = 1ull << 32;

bool is_set(const uint8_t* bitmap, uint64_t pfn) { return bitmap[pfn / 8] >> pfn % 8 & 1; }

}  // namespace

bool KeptMemory::map_all(Fault* fault) {
  if (source_->translated()) return map_steady(fault);
  const uint64_t nr_pfns = source_->p2m_size();
  return resize(nr_pfns, fault);
}

// What comes and goes while all is mapped is missed: once more then. Where it does not end, or
// where others hold pages that the domain gave back, the count says so as long as it is not equal.
bool KeptMemory::map_steady(Fault* fault) {
  for (int i = 0; i < kScans; ++i) {
    uint64_t nr_pfns = 0, total = 0, nr_pfns_after = 0, total_after = 0;
    if (!source_->size(&total, &nr_pfns, fault) || !resize(nr_pfns, fault)) return false;
    if (!source_->size(&total_after, &nr_pfns_after, fault)) return false;
    if (total == total_after && nr_pfns == nr_pfns_after) return true;
  }
  return true;
}

void KeptMemory::unmap_all() {
  alone_.clear();
  chunks_.clear();
  nr_mapped_ = 0;
}

// Everything is unmapped and mapped again at that size.
bool KeptMemory::resize(uint64_t nr_pfns, Fault* fault) {
  if (nr_pfns == 0 || nr_pfns > kNrPfnsCap)
    return fault->raise("GUEST_MEMORY_UNREADABLE", "the domain has no usable pfn space");
  unmap_all();
  nr_pfns_ = 0;  // until there is room for what is known of each
  states_.assign(nr_pfns, kUnmapped);
  chunks_.resize((nr_pfns + kChunkPages - 1) / kChunkPages);
  if (!source_->translated()) {
    frames_.resize(nr_pfns);
    moved_ = std::vector<std::atomic<uint64_t>>((nr_pfns + 63) / 64);
    for (uint64_t pfn = 0; pfn < nr_pfns; ++pfn) frames_[pfn] = source_->p2m_frame(pfn);
  }
  nr_pfns_ = nr_pfns;
  if (map_chunks(fault)) return true;
  // Those that were to be mapped are marked as if they were.
  for (uint64_t i = 0; i < chunks_.size(); ++i)
    if (!chunks_[i].pages) unmap_chunk(i);
  return false;
}

bool KeptMemory::map_chunks(Fault* fault) {
  if (source_->translated() && !find_populated(fault)) return false;
  for (uint64_t i = 0; i < chunks_.size(); ++i)
    if (!map_chunk(i, fault)) return false;
  return true;
}

// Marks the populated pfns of a translated domain in states_, for map_chunk to map.
bool KeptMemory::find_populated(Fault* fault) {
  holes_.begin(nr_pfns_);
  uint64_t frames[kBatch] = {};
  uint8_t kinds[kBatch];
  for (uint64_t first = 0; first < nr_pfns_; first += kBatch) {
    const uint32_t n = uint32_t(std::min<uint64_t>(kBatch, nr_pfns_ - first));
    for (uint32_t i = 0; i < n; ++i) frames[i] = first + i;
    if (!source_->types(frames, n, kinds, fault)) return false;
    for (uint32_t i = 0; i < n; ++i) {
      if (kinds[i] != kXtab) holes_.inhabit(first);
      if (has_body(kinds[i])) states_[first + i] = kInChunk;
    }
  }
  holes_.trust();
  return true;
}

uint64_t KeptMemory::next_present(uint64_t pfn) const {
  return source_->translated() ? holes_.next_present(pfn) : pfn;
}

// What is read of it is mapped page by page then.
void KeptMemory::unmap_chunk(uint64_t index) {
  const uint64_t start = index * kChunkPages, end = std::min(start + kChunkPages, nr_pfns_);
  for (uint64_t pfn = start; pfn < end; ++pfn) {
    if (states_[pfn] == kAlone) alone_.erase(pfn);
    states_[pfn] = kUnmapped;
  }
  nr_mapped_ -= chunks_[index].mapped;
  chunks_[index] = Chunk();
}

bool KeptMemory::map_chunk(uint64_t index, Fault* fault) {
  const uint64_t start = index * kChunkPages, end = std::min(start + kChunkPages, nr_pfns_);
  auto wanted = [&](uint64_t pfn) {
    return source_->translated() ? states_[pfn] != kUnmapped : frames_[pfn] != kNoMfn;
  };
  uint64_t low = start, high = end;
  while (low < high && !wanted(low)) ++low;
  while (high > low && !wanted(high - 1)) --high;
  std::vector<uint64_t> frames(high - low);
  std::vector<bool> has_frame(high - low);
  for (uint64_t pfn = low; pfn < high; ++pfn) {
    has_frame[pfn - low] = wanted(pfn);
    frames[pfn - low] = frame_of(wanted(pfn) ? pfn : low);
  }
  unmap_chunk(index);
  if (low == high) return true;
  std::vector<int> errors(high - low);
  auto pages = source_->map(frames.data(), uint32_t(frames.size()), errors.data(), fault);
  if (!pages) return false;
  Chunk& chunk = chunks_[index];
  chunk.pages = std::move(pages);
  chunk.first = low;
  for (uint64_t pfn = low; pfn < high; ++pfn) {
    if (!has_frame[pfn - low] || errors[pfn - low] != 0) continue;
    states_[pfn] = kInChunk;
    ++chunk.mapped;
  }
  nr_mapped_ += chunk.mapped;
  return true;
}

bool KeptMemory::map_crowded(Fault* fault) {
  for (uint64_t i = 0; i < chunks_.size(); ++i)
    if (chunks_[i].alone > kAloneLimit && !map_chunk(i, fault)) return false;
  return true;
}

bool KeptMemory::refresh(bool logged, Fault* fault) {
  if (!source_->translated()) return catch_up(logged, fault) && map_crowded(fault);
  return logged ? map_crowded(fault) : catch_up(false, fault);
}

bool KeptMemory::all_is_mapped(bool* all, Fault* fault) {
  uint64_t total = 0, nr_pfns = 0;
  if (!source_->size(&total, &nr_pfns, fault)) return false;
  *all = total == nr_mapped_ && nr_pfns == nr_pfns_;
  return true;
}

bool KeptMemory::catch_up(bool logged, Fault* fault) {
  if (source_->translated()) {
    bool all = logged;
    if (!logged && !all_is_mapped(&all, fault)) return false;
    return all || map_all(fault);
  }
  bool moved = false;
  if (!source_->refresh_p2m(&moved, fault)) return false;
  if (moved && source_->p2m_size() != nr_pfns_) return map_all(fault);
  // Without a log nothing names the entries that changed, and tables are judged by all of them.
  if (moved || !logged) follow_p2m(0, nr_pfns_);
  return true;
}

FrameMaps KeptMemory::maps() const {
  if (source_->translated()) return {nullptr, 0, nullptr, 0};
  return {frames_.data(), nr_pfns_, source_->m2p(), source_->nr_mfns()};
}

// Takes over what changed in the guest's list; a changed page is mapped again when it is read.
void KeptMemory::follow_p2m(uint64_t first, uint64_t n) {
  for (uint64_t pfn = first; pfn < first + n; ++pfn) {
    const uint64_t now = source_->p2m_frame(pfn);
    if (now == frames_[pfn]) continue;
    __atomic_store_n(&frames_[pfn], now, __ATOMIC_RELAXED);
    moved_[pfn / 64].fetch_or(1ull << pfn % 64, std::memory_order_relaxed);
    drop_page(pfn);
  }
}

bool KeptMemory::follow_log(uint8_t* bitmap, uint64_t nr_pfns, Fault* fault) {
  const uint64_t end = std::min(nr_pfns, nr_pfns_);
  if (source_->translated()) {
    holes_.inhabit_logged(bitmap, end);
    return drop_logged(bitmap, end, fault);
  }
  follow_leaves(bitmap, end);
  add_moved(bitmap, end);
  return true;
}

// The guest's p2m changed only where the log names a page of it.
void KeptMemory::follow_leaves(const uint8_t* bitmap, uint64_t nr_pfns) {
  const std::vector<uint64_t>& leaves = source_->p2m_leaves();
  for (uint64_t i = 0; i < leaves.size() && i * kLeafEntries < nr_pfns_; ++i) {
    const uint64_t pfn = leaves[i] < source_->nr_mfns() ? source_->m2p()[leaves[i]] : kUnknown;
    // A leaf whose own pfn cannot be told is looked at whatever the log says.
    if (pfn < nr_pfns && !is_set(bitmap, pfn)) continue;
    follow_p2m(i * kLeafEntries, std::min(kLeafEntries, nr_pfns_ - i * kLeafEntries));
  }
}

void KeptMemory::add_moved(uint8_t* bitmap, uint64_t nr_pfns) {
  for (uint64_t word = 0; word * 64 < nr_pfns; ++word) {
    if (moved_[word].load(std::memory_order_relaxed) == 0) continue;
    const uint64_t bits = moved_[word].exchange(0, std::memory_order_relaxed);
    for (uint32_t i = 0; i < 64 && word * 64 + i < nr_pfns; ++i)
      if (bits >> i & 1) bitmap[word * 8 + i / 8] |= uint8_t(1u << i % 8);
  }
}

// If frames came, a page that the log names may have one of them, and what is mapped of it may be
// the one that it had: it is mapped again when it is read. A frame that came between the reading of
// the log and this look at the count is in the next log.
bool KeptMemory::drop_logged(const uint8_t* bitmap, uint64_t nr_pfns, Fault* fault) {
  bool all = false;
  if (!all_is_mapped(&all, fault)) return false;
  for (uint64_t byte = 0; !all && byte * 8 < nr_pfns; ++byte)
    for (uint64_t pfn = byte * 8; bitmap[byte] != 0 && pfn < std::min(nr_pfns, byte * 8 + 8); ++pfn)
      if (is_set(bitmap, pfn)) drop_page(pfn);
  return true;
}

void KeptMemory::drop_page(uint64_t pfn) {
  if (states_[pfn] == kUnmapped) return;
  std::lock_guard<std::mutex> hold(alone_lock_);
  Chunk& chunk = chunks_[pfn / kChunkPages];
  if (states_[pfn] == kAlone) alone_.erase(pfn);
  if (states_[pfn] == kInChunk) ++chunk.alone;
  states_[pfn] = kUnmapped;
  --chunk.mapped;
  --nr_mapped_;
}

bool KeptMemory::query(uint64_t first, uint32_t n, uint64_t* entries, Fault* fault) {
  if (n > kBatch || first > nr_pfns_ || n > nr_pfns_ - first)
    return fault->raise("INTERNAL", "query beyond the domain's pfns");
  const bool translated = source_->translated();
  if (!translated) follow_p2m(first, n);
  if (translated && holes_.in_hole(first, n)) {
    std::fill(entries, entries + n, kNoMfn | uint64_t(kXtab) << 60);
    return true;
  }
  uint64_t frames[kBatch];
  uint8_t kinds[kBatch];
  for (uint32_t i = 0; i < n; ++i) frames[i] = frame_of(first + i);
  if (!source_->types(frames, n, kinds, fault)) return false;
  for (uint32_t i = 0; i < n; ++i) {
    const bool none = kinds[i] == kXtab;
    if (none && translated) drop_page(first + i);
    entries[i] = (none ? kNoMfn : frames[i]) | uint64_t(kinds[i]) << 60;
  }
  return true;
}

// Maps those of the pages that are not, in one go. What cannot be mapped stays as it is.
void KeptMemory::map_missing(const uint64_t* pfns, uint32_t n) {
  uint64_t missing[kBatch], frames[kBatch];
  int errors[kBatch];
  uint32_t count = 0;
  for (uint32_t i = 0; i < n && count < kBatch; ++i) {
    if (pfns[i] >= nr_pfns_ || states_[pfns[i]] != kUnmapped) continue;
    if (frame_of(pfns[i]) == kNoMfn) continue;
    missing[count] = pfns[i];
    frames[count++] = frame_of(pfns[i]);
  }
  if (count == 0) return;
  Fault none;
  std::shared_ptr<Mapping> pages = source_->map(frames, count, errors, &none);
  if (!pages) return;
  std::lock_guard<std::mutex> hold(alone_lock_);
  for (uint32_t i = 0; i < count; ++i) {
    if (errors[i] != 0) continue;
    alone_[missing[i]] = {pages, pages->data() + uint64_t(i) * kPageSize};
    states_[missing[i]] = kAlone;
    Chunk& chunk = chunks_[missing[i] / kChunkPages];
    ++chunk.alone;
    ++chunk.mapped;
    ++nr_mapped_;
  }
}

// Null where it is not mapped.
const uint8_t* KeptMemory::page(uint64_t pfn) {
  if (pfn >= nr_pfns_ || states_[pfn] == kUnmapped) return nullptr;
  if (states_[pfn] == kInChunk) {
    const Chunk& chunk = chunks_[pfn / kChunkPages];
    return chunk.pages->data() + (pfn - chunk.first) * kPageSize;
  }
  std::lock_guard<std::mutex> hold(alone_lock_);
  return alone_[pfn].at;
}

bool KeptMemory::copy_out(const uint64_t* pfns, const uint64_t* entries, uint32_t n, uint8_t* dst,
                          Fault* fault) {
  (void)entries;
  for (uint32_t i = 0; i < n; ++i, dst += kPageSize) {
    const uint8_t* from = page(pfns[i]);
    if (!from) {
      map_missing(pfns + i, n - i);
      from = page(pfns[i]);
    }
    if (!from) {
      fault->pfn = pfns[i];
      return fault->raise("GUEST_MEMORY_UNREADABLE",
                          "pfn " + std::to_string(pfns[i]) + " cannot be mapped any more");
    }
    std::memcpy(dst, from, kPageSize);
  }
  return true;
}

const uint8_t* KeptMemory::peek(uint64_t pfn, uint64_t entry) {
  if (!has_body(type_of(entry))) return nullptr;
  if (const uint8_t* at = page(pfn)) return at;
  map_missing(&pfn, 1);
  return page(pfn);
}

bool KeptMemory::copy_in(const uint64_t*, uint32_t, const uint8_t*, Fault* fault) {
  return fault->raise("HOST_LACKS", "the memory of a finished domain is read-only here");
}

}  // namespace dormouse::host
