#include "image/page_map.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

namespace dormouse::image {

namespace {

constexpr uint64_t kPagesACall = 1u << 20;
constexpr uint32_t kMapBlockBytes = kMapBlockRuns * sizeof(MapRun);

// chunk in bits 0..31, slot 32..47, class 48..51, type 52..55; an absent page is all zero.
constexpr uint64_t pack(uint32_t chunk, uint16_t slot, uint64_t desc) {
  return chunk | uint64_t(slot) << 32 | uint64_t(desc_class(desc)) << 48 |
         uint64_t(desc_type(desc)) << 52;
}
constexpr uint8_t packed_class(uint64_t entry) { return entry >> 48 & 0xF; }

bool damaged(Fault* fault, const char* what) {
  return fault->raise("IMAGE_DAMAGED", std::string("page map: ") + what);
}

void encode_block(codec::Lz4State& lz4, const std::vector<MapRun>& runs,
                  std::vector<uint8_t>* out) {
  const uint32_t raw = uint32_t(runs.size() * sizeof(MapRun));
  const auto* from = reinterpret_cast<const uint8_t*>(runs.data());
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

WriterMap::WriterMap(uint64_t nr_pfns) : nr_pfns_(nr_pfns) {
  void* at = mmap(nullptr, nr_pfns * 8, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at != MAP_FAILED) entries_ = static_cast<std::atomic<uint64_t>*>(at);
}

WriterMap::~WriterMap() {
  if (entries_) munmap(static_cast<void*>(entries_), nr_pfns_ * 8);
}

uint8_t WriterMap::put(uint64_t desc, uint32_t chunk, uint16_t slot) {
  return packed_class(entries_[desc_pfn(desc)].exchange(pack(chunk, slot, desc)));
}

uint64_t WriterMap::first_absent() const {
  uint64_t pfn = 0;
  while (pfn < nr_pfns_ && entries_[pfn].load(std::memory_order_relaxed) != 0) pfn++;
  return pfn;
}

MapRun WriterMap::run_at(uint64_t pfn) const {
  const uint64_t first = entries_[pfn];
  constexpr uint64_t kNextSlot = 1ull << 32;
  uint32_t count = 1;
  while (pfn + count < nr_pfns_ && entries_[pfn + count] == first + count * kNextSlot) count++;
  return {count, uint32_t(first), uint16_t(first >> 32), packed_class(first),
          uint8_t(first >> 52 & 0xF)};
}

bool WriterMap::encode_some(codec::Lz4State& lz4, std::vector<uint8_t>* out, uint64_t* n_runs) {
  const uint64_t stop = std::min(nr_pfns_, cursor_ + kPagesACall);
  std::vector<MapRun> runs;
  runs.reserve(kMapBlockRuns);
  while (cursor_ < stop || (cursor_ < nr_pfns_ && !runs.empty())) {
    runs.push_back(run_at(cursor_));
    cursor_ += runs.back().count;
    if (runs.size() < kMapBlockRuns && cursor_ < nr_pfns_) continue;
    encode_block(lz4, runs, out);
    *n_runs += runs.size();
    runs.clear();
  }
  return cursor_ < nr_pfns_;
}

// All blocks' sizes, before memory is taken for what they claim to hold.
bool ReaderMap::check_sizes(const uint8_t* bytes, uint64_t n, uint64_t n_runs, Fault* fault) const {
  uint64_t at = 0, left = n_runs;
  while (left > 0) {
    MapBlockHeader h;
    if (n - at < sizeof h) return damaged(fault, "ends early");
    std::memcpy(&h, bytes + at, sizeof h);
    at += sizeof h;
    const uint64_t runs = std::min<uint64_t>(left, kMapBlockRuns);
    const uint32_t stored = h.stored_size & ~kStoredFlag;
    const bool possible = h.stored_size & kStoredFlag
                              ? stored == h.raw_size
                              : stored < h.raw_size && uint64_t(stored) * 255 >= h.raw_size;
    if (h.raw_size != runs * sizeof(MapRun) || !possible || stored > n - at)
      return damaged(fault, "a block has an impossible size");
    at += stored;
    left -= runs;
  }
  return at == n || damaged(fault, "has bytes too many");
}

bool ReaderMap::add(const MapRun& run, uint64_t* next, bool has_parent,
                    const std::vector<ChunkEntry>& chunks, Fault* fault) {
  fault->pfn = *next;
  if (run.count == 0 || run.count > nr_pfns_ - *next)
    return damaged(fault, "covers other pages than the image has");
  if (!class_fits_type(run.page_class, run.type) ||
      (run.page_class == kClassSameAsParent && !has_parent))
    return damaged(fault, "a page has an impossible class");
  if (run.chunk >= chunks.size() || uint64_t(run.slot) + run.count > chunks[run.chunk].pages)
    return damaged(fault, "leads to a chunk that is not there");
  fault->pfn = Fault::kNowhere;
  runs_.push_back({uint32_t(*next), run.chunk, run.slot, run.page_class, run.type});
  *next += run.count;
  return true;
}

bool ReaderMap::decode(const uint8_t* bytes, uint64_t n, uint64_t n_runs, uint64_t nr_pfns,
                       bool has_parent, const std::vector<ChunkEntry>& chunks, Fault* fault) {
  nr_pfns_ = nr_pfns;
  if (n_runs == 0 || n_runs > nr_pfns || nr_pfns > kMaxPfns)
    return damaged(fault, "its size contradicts the image's");
  if (!check_sizes(bytes, n, n_runs, fault)) return false;
  runs_.reserve(n_runs);
  std::vector<uint8_t> raw(kMapBlockBytes);
  uint64_t next = 0;
  for (uint64_t at = 0; at < n;) {
    MapBlockHeader h;
    std::memcpy(&h, bytes + at, sizeof h);
    at += sizeof h;
    const uint32_t stored = h.stored_size & ~kStoredFlag;
    if (h.stored_size & kStoredFlag)
      std::memcpy(raw.data(), bytes + at, stored);
    else if (!codec::lz4_decompress(bytes + at, stored, raw.data(), h.raw_size))
      return damaged(fault, "a block does not decode");
    at += stored;
    for (uint32_t r = 0; r < h.raw_size; r += sizeof(MapRun)) {
      MapRun run;
      std::memcpy(&run, raw.data() + r, sizeof run);
      if (!add(run, &next, has_parent, chunks, fault)) return false;
    }
  }
  return next == nr_pfns || damaged(fault, "does not cover every page");
}

size_t ReaderMap::find(uint64_t pfn) const {
  // Pages are mostly asked for in order, so the last run or its successor has the next one. The
  // hint is only a guess and is checked.
  static thread_local size_t hint = 0;
  for (size_t i = hint; i < std::min(hint + 2, runs_.size()); i++)
    if (runs_[i].first <= pfn && pfn < end_of(i)) return hint = i;
  const auto after =
      std::upper_bound(runs_.begin(), runs_.end(), pfn,
                       [](uint64_t wanted, const PlacedRun& run) { return wanted < run.first; });
  return hint = size_t(after - runs_.begin()) - 1;
}

}  // namespace dormouse::image
