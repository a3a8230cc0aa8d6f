#include "image/page_map.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>

namespace dormouse::image {

namespace {

constexpr uint32_t kMapBlockBytes = kMapBlockRuns * sizeof(MapRun);

bool damaged(Fault* fault, const char* what) {
  return fault->raise("IMAGE_DAMAGED", std::string("page map: ") + what);
}

// Runs that follow each other, joined where one goes on where the last ended.
void join(std::vector<PlacedRun>* runs, const PlacedRun& next) {
  if (!runs->empty()) {
    const PlacedRun& last = runs->back();
    const bool same =
        last.page_class == next.page_class && last.type == next.type && last.chunk == next.chunk &&
        (next.chunk == kNoChunk || last.slot + (next.first - last.first) == next.slot);
    if (same) return;
  }
  runs->push_back(next);
}

}  // namespace

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

bool ReaderMap::add(const MapRun& run, uint64_t* next, const MapClaims& claims, Fault* fault) {
  fault->pfn = *next;
  if (run.count == 0 || run.count > nr_pfns_ - *next)
    return damaged(fault, "covers other pages than the image has");
  const bool absent = run.page_class == kClassAbsent;
  if (absent ? !claims.sparse || run.type != 0 : !class_fits_type(run.page_class, run.type))
    return damaged(fault, "a page has an impossible class");
  if ((run.reserved != 0 && !claims.newer) || run.source >= claims.sources->size())
    return damaged(fault, "a run has an impossible source");
  PlacedRun placed = {uint32_t(*next), kNoChunk, 0, run.page_class, run.type};
  if (class_has_body(run.page_class)) {
    const MapSource& source = (*claims.sources)[run.source];
    if (run.chunk >= source.chunks->size() ||
        uint64_t(run.slot) + run.count > (*source.chunks)[run.chunk].pages)
      return damaged(fault, "leads to a chunk that is not there");
    placed.chunk = source.first_chunk + run.chunk;
    placed.slot = run.slot;
  } else if (run.chunk != 0 || run.slot != 0 || (absent && run.source != 0)) {
    return damaged(fault, "leads to a chunk for pages that are in none");
  }
  fault->pfn = Fault::kNowhere;
  runs_.push_back(placed);
  own_counts_[absent || run.source != 0 ? uint8_t(kClassSameAsParent) : run.page_class] +=
      run.count;
  *next += run.count;
  return true;
}

bool ReaderMap::decode(const uint8_t* bytes, uint64_t n, const MapClaims& claims, Fault* fault) {
  nr_pfns_ = claims.nr_pfns;
  if (claims.n_runs == 0 || claims.n_runs > nr_pfns_ || nr_pfns_ > kMaxPfns)
    return damaged(fault, "its size contradicts the image's");
  if (!check_sizes(bytes, n, claims.n_runs, fault)) return false;
  runs_.reserve(claims.n_runs);
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
      if (!add(run, &next, claims, fault)) return false;
    }
  }
  return next == nr_pfns_ || damaged(fault, "does not cover every page");
}

bool ReaderMap::rests_on(uint64_t nr_pfns, Fault* fault) const {
  for (size_t i = 0; i < runs_.size(); i++) {
    if (runs_[i].page_class != kClassAbsent || end_of(i) <= nr_pfns) continue;
    fault->pfn = std::max<uint64_t>(runs_[i].first, nr_pfns);
    return fault->raise("IMAGE_DAMAGED", "page map: a page is in no image of the chain");
  }
  return true;
}

void ReaderMap::lay_over(const ReaderMap& older) {
  std::vector<PlacedRun> both;
  size_t below = 0;
  for (size_t i = 0; i < runs_.size(); i++) {
    if (runs_[i].page_class != kClassAbsent) {
      join(&both, runs_[i]);
      continue;
    }
    const uint64_t end = end_of(i);
    uint64_t at = runs_[i].first;
    while (below < older.runs_.size() && older.end_of(below) <= at) below++;
    for (; at < end && below < older.runs_.size(); below++) {
      PlacedRun part = older.runs_[below];
      if (part.chunk != kNoChunk) part.slot = uint16_t(part.slot + (at - part.first));
      part.first = uint32_t(at);
      join(&both, part);
      at = std::min(end, older.end_of(below));
      if (at == end) break;
    }
    if (at < end) join(&both, {uint32_t(at), kNoChunk, 0, kClassAbsent, 0});
  }
  runs_ = std::move(both);
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
