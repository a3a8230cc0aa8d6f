// What the reader does with chunks of deltas: pages out of them and what they rest on.
#include <fcntl.h>
#include <string.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>
#include <tuple>

#include "guard.h"
#include "image/image_reader.h"

namespace dormouse::image {

bool ImageReader::bad_delta(uint32_t chunk, uint64_t pfn, const char* what, Fault* fault) const {
  damaged(chunk, "the delta of pfn " + std::to_string(pfn) + " " + what, fault);
  fault->pfn = pfn;
  return false;
}

// What a delta rests on cannot be read: the file to look at is the one that it is in.
bool ImageReader::bad_base(const Followed& delta, const Fault& inner, Fault* fault) const {
  if (strcmp(inner.code, "IMAGE_DAMAGED") != 0) {
    *fault = inner;
    return false;
  }
  const Source& source = sources_[delta.base.source];
  const uint64_t pfn = desc_pfn(delta.desc);
  fault->chunk = delta.base.chunk;
  fault->offset = source.chunks[delta.base.chunk].offset;
  fault->pfn = pfn;
  return fault->raise("IMAGE_DAMAGED", source.name + ": chunk " + std::to_string(delta.base.chunk) +
                                           " at offset " + std::to_string(fault->offset) +
                                           " (pfn " + std::to_string(pfn) + " of " +
                                           sources_[places_[delta.chunk].source].name +
                                           " rests on it): " + inner.text);
}

std::string ImageReader::resting_pfns(uint32_t chunk, bool beside_others, Fault* fault) const {
  constexpr uint32_t kMostNamed = 4;
  const Range range = resting_on(chunk);
  if (range.count == 0) return "";
  std::string pfns;
  for (uint32_t i = 0; i < std::min(range.count, kMostNamed); i++)
    pfns += (i ? ", " : "") + std::to_string(desc_pfn(followed_[range.first + i].desc));
  if (range.count > kMostNamed)
    pfns += " and " + std::to_string(range.count - kMostNamed) + " more";
  if (!beside_others) fault->pfn = desc_pfn(followed_[range.first].desc);
  return (beside_others ? "; deltas of " : "deltas of ") + pfns + " rest on it";
}

// Where the page is that a delta of a chunk rests on.
bool ImageReader::base_place(uint32_t chunk, const DeltaBase& base, uint64_t pfn, Place* where,
                             Fault* fault) const {
  const auto& bases = sources_[places_[chunk].source].bases;
  const uint32_t file = base.age <= bases.size() ? bases[base.age - 1] : 0;
  if (file == 0)
    return bad_delta(chunk, pfn, "rests on a file that the image does not name", fault);
  *where = {file, base.chunk};
  return base.chunk < sources_[file].chunks.size() ||
         bad_delta(chunk, pfn, "rests on a chunk that is not there", fault);
}

bool ImageReader::find_deltas(uint32_t lane_index, uint32_t chunk, std::vector<Followed>* found,
                              Fault* fault) {
  const Source& source = sources_[places_[chunk].source];
  ChunkHeader header;
  // Without a look at the rest of a chunk of pages.
  if (!read_at(source, entry(chunk).offset, sizeof header, reinterpret_cast<uint8_t*>(&header),
               fault))
    return false;
  if (header.kind != kChunkDeltas) return true;
  LaneBuffers& lane = lanes_[lane_index].chunk;
  if (!load(lane, chunk, fault)) return false;
  if (lane.view.header.kind != kChunkDeltas) return true;  // the file changed meanwhile
  std::vector<StoredDelta> list;
  list_deltas(lane.view, &list);
  bases_of_[chunk].assign(list.size(), kNoChunk);
  for (const StoredDelta& delta : list) {
    const uint64_t desc = lane.descs[delta.slot];
    if (!is_sought(chunk, delta.slot, desc_pfn(desc))) continue;
    const uint64_t offset = entry(chunk).offset + uint64_t(delta.bytes - lane.stored.get());
    Followed one = {{}, delta.base.slot, chunk, delta.slot, delta.size, offset, desc};
    if (!base_place(chunk, delta.base, desc_pfn(desc), &one.base, fault)) return false;
    found->push_back(one);
  }
  return true;
}

bool ImageReader::find_all_deltas(std::vector<Followed>* found, Fault* fault) {
  std::atomic<uint32_t> next{0};
  std::mutex lock;
  bool good = true;
  const auto work = [&](uint32_t lane) {
    std::vector<Followed> mine;
    Fault bad;
    const bool done = guarded(&bad, [&] {
      for (uint32_t chunk; (chunk = next.fetch_add(1)) < places_.size();) {
        if (current_[chunk] == 0 || !sources_[places_[chunk].source].deltas) continue;
        if (!find_deltas(lane, chunk, &mine, &bad)) return false;
      }
      std::lock_guard<std::mutex> hold(lock);
      found->insert(found->end(), mine.begin(), mine.end());
      return true;
    });
    if (done) return;
    next = uint32_t(places_.size());
    std::lock_guard<std::mutex> hold(lock);
    if (good) *fault = bad;
    good = false;
  };
  std::vector<std::thread> others;
  Fault no_thread;
  guarded(&no_thread, [&] {
    for (uint32_t lane = 1; lane < lanes_.size(); lane++) others.emplace_back(work, lane);
    return true;
  });
  work(0);
  for (std::thread& other : others) other.join();
  return good;
}

// Chunks that join the list come after those that are there.
bool ImageReader::list_bases(Fault* fault) {
  std::vector<std::vector<uint32_t>> numbers(sources_.size());
  for (size_t s = 0; s < sources_.size(); s++)
    numbers[s].assign(sources_[s].chunks.size(), kNoChunk);
  for (uint32_t i = 0; i < places_.size(); i++) numbers[places_[i].source][places_[i].chunk] = i;
  for (uint32_t i = 0; i < followed_.size(); i++) {
    const Followed& delta = followed_[i];
    uint32_t& number = numbers[delta.base.source][delta.base.chunk];
    if (number == kNoChunk) {
      number = uint32_t(places_.size());
      places_.push_back(delta.base);
      current_.push_back(0);
      bases_of_.emplace_back();
    }
    if (rest_on_.size() < places_.size()) rest_on_.resize(places_.size());
    if (holds_deltas(number)) {
      Fault inner;
      inner.raise("IMAGE_DAMAGED", "a delta rests on a delta");
      return bad_base(delta, inner, fault);
    }
    if (rest_on_[number].count++ == 0) rest_on_[number].first = i;
    bases_of_[delta.chunk][delta.slot] = number;
  }
  return true;
}

bool ImageReader::follow_deltas(Fault* fault) {
  if (!bases_of_.empty()) return fault->raise("INTERNAL", "deltas were followed already");
  bases_of_.resize(places_.size());
  if (!find_all_deltas(&followed_, fault)) return false;
  std::sort(followed_.begin(), followed_.end(), [](const Followed& a, const Followed& b) {
    return std::tie(a.base.source, a.base.chunk, a.base_slot, a.desc) <
           std::tie(b.base.source, b.base.chunk, b.base_slot, b.desc);
  });
  return list_bases(fault);
}

bool ImageReader::is_current(uint32_t chunk, uint32_t slot, uint64_t pfn) const {
  if (is_sought(chunk, slot, pfn)) return !holds_deltas(chunk);
  const Range range = resting_on(chunk);
  if (range.count == 0) return false;
  const auto first = followed_.begin() + range.first, end = first + range.count;
  const auto at = std::lower_bound(
      first, end, slot, [](const Followed& one, uint32_t other) { return one.base_slot < other; });
  return at != end && at->base_slot == slot && desc_pfn(at->desc) == pfn;
}

bool ImageReader::nothing_counts(uint32_t chunk, Fault* fault) const {
  if (bases_of_.empty()) return fault->raise("INTERNAL", "deltas were not followed");
  const Range range = resting_on(chunk);
  if (range.count > 0) {
    Fault inner;
    inner.raise("IMAGE_DAMAGED", "a delta rests on a delta");
    return bad_base(followed_[range.first], inner, fault);
  }
  return current_[chunk] == 0 || damaged(chunk, "it is not what it was", fault);
}

void ImageReader::mark_chunks(uint64_t first, uint64_t count, std::vector<bool>* chunks) const {
  const PlacedRun& run = map_.runs()[map_.find(first)];
  if (run.chunk == kNoChunk) return;
  if (!holds_deltas(run.chunk)) {
    (*chunks)[run.chunk] = true;
    return;
  }
  for (uint64_t pfn = first; pfn < first + count; pfn++)
    (*chunks)[bases_of_[run.chunk][run.slot + (pfn - run.first)]] = true;
}

bool ImageReader::make_page(codec::DeltaState& codec, const Followed& delta, const uint8_t* bytes,
                            uint8_t* page, Fault* fault) {
  const Place& own = places_[delta.chunk];
  const Source& source = sources_[own.source];
  const uint64_t pfn = desc_pfn(delta.desc);
  if (!codec::delta_apply(codec, bytes, delta.size, page, kPageBytes))
    return bad_delta(delta.chunk, pfn, "does not decode", fault);
  const pfn::Hash128& hash = source.page_hashes[source.first_page[own.chunk] + delta.slot];
  return pfn::hash128(page, kPageBytes) == hash ||
         bad_delta(delta.chunk, pfn, "gives another page than its hash says", fault);
}

// The chunk is decoded: pages that deltas rest on become what those make of them. No delta counts
// whose own page counts too: both are of one pfn.
bool ImageReader::apply_deltas(Lane& lane, uint32_t chunk, Fault* fault) {
  const Range range = resting_on(chunk);
  if (range.count > 0 && !lane.codec) lane.codec = std::make_unique<codec::DeltaState>();
  uint8_t bytes[kPageBytes];
  for (uint32_t i = range.first; i < range.first + range.count; i++) {
    const Followed& delta = followed_[i];
    Fault inner;
    if (delta.base_slot >= lane.chunk.view.header.pages ||
        lane.chunk.descs[delta.base_slot] != delta.desc) {
      inner.raise("IMAGE_DAMAGED", "a delta rests on another page");
      return bad_base(delta, inner, fault);
    }
    uint8_t* const page = lane.chunk.bodies.get() + uint64_t(delta.base_slot) * kPageBytes;
    if (!read_at(sources_[places_[delta.chunk].source], delta.offset, delta.size, bytes, &inner))
      return refused(delta.chunk, inner, fault);
    if (!make_page(*lane.codec, delta, bytes, page, fault)) return false;
  }
  return true;
}

bool ImageReader::read_base(LaneBuffers& lane, const Followed& delta, uint8_t* out, Fault* fault) {
  if (lane.loaded != key_of(delta.base) && !load_place(lane, delta.base, fault)) return false;
  if (lane.view.header.kind != kChunkPages)
    return fault->raise("IMAGE_DAMAGED", "a delta rests on a delta");
  if (delta.base_slot >= lane.view.header.pages || lane.descs[delta.base_slot] != delta.desc)
    return fault->raise("IMAGE_DAMAGED", "a delta rests on another page");
  if (!decode(lane, delta.base_slot / kBlockPages, fault)) return false;
  memcpy(out, lane.bodies.get() + uint64_t(delta.base_slot % kBlockPages) * kPageBytes, kPageBytes);
  return true;
}

// One page of a chunk of deltas that is loaded.
bool ImageReader::read_delta(LaneBuffers& lane, uint32_t chunk, uint32_t slot, uint8_t* out,
                             Fault* fault) {
  if (!page_codec_) page_codec_ = std::make_unique<codec::DeltaState>();
  std::vector<StoredDelta> list;
  list_deltas(lane.view, &list);
  const StoredDelta& stored = list[slot];
  Followed delta = {{}, stored.base.slot, chunk, slot, stored.size, 0, lane.descs[slot]};
  if (!base_place(chunk, stored.base, desc_pfn(delta.desc), &delta.base, fault)) return false;
  Fault inner;
  if (!read_base(page_lane(delta.base), delta, out, &inner)) return bad_base(delta, inner, fault);
  return make_page(*page_codec_, delta, stored.bytes, out, fault);
}

}  // namespace dormouse::image
