// What the reader does with chunks of deltas: pages out of them and what they rest on.
#include <string.h>

#include <algorithm>
#include <tuple>

#include "image/image_reader.h"

namespace dormouse::image {

bool ImageReader::bad_delta(uint32_t chunk, uint64_t pfn, const char* what, Fault* fault) const {
  damaged(chunk, "the delta of pfn " + std::to_string(pfn) + " " + what, fault);
  fault->pfn = pfn;
  return false;
}

// What a delta rests on cannot be read: the file to look at is the one that it is in.
bool ImageReader::bad_base(uint32_t chunk, const Place& where, uint64_t pfn, const Fault& inner,
                           Fault* fault) const {
  if (strcmp(inner.code, "IMAGE_DAMAGED") != 0) {
    *fault = inner;
    return false;
  }
  const Source& source = sources_[where.source];
  fault->chunk = where.chunk;
  fault->offset = source.chunks[where.chunk].offset;
  fault->pfn = pfn;
  return fault->raise("IMAGE_DAMAGED",
                      source.name + ": chunk " + std::to_string(where.chunk) + " at offset " +
                          std::to_string(fault->offset) + " (pfn " + std::to_string(pfn) + " of " +
                          sources_[places_[chunk].source].name + " rests on it): " + inner.text);
}

bool ImageReader::read_base(LaneBuffers& lane, const Place& where, const DeltaBase& at,
                            uint64_t desc, uint8_t* out, Fault* fault) {
  if (lane.loaded != key_of(where) && !load_place(lane, where, fault)) return false;
  if (lane.view.header.kind != kChunkPages)
    return fault->raise("IMAGE_DAMAGED", "a delta rests on a delta");
  if (at.slot >= lane.view.header.pages || lane.descs[at.slot] != desc)
    return fault->raise("IMAGE_DAMAGED", "a delta rests on another page");
  if (!decode(lane, at.slot / kBlockPages, fault)) return false;
  memcpy(out, lane.bodies.get() + uint64_t(at.slot % kBlockPages) * kPageBytes, kPageBytes);
  return true;
}

bool ImageReader::make_page(LaneBuffers& base, codec::DeltaState& codec, uint32_t chunk,
                            const StoredDelta& delta, uint64_t desc, uint8_t* out, Fault* fault) {
  const Place& own = places_[chunk];
  const Source& source = sources_[own.source];
  const uint64_t pfn = desc_pfn(desc);
  const uint32_t file =
      delta.base.age <= source.bases.size() ? source.bases[delta.base.age - 1] : 0;
  if (file == 0)
    return bad_delta(chunk, pfn, "rests on a file that the image does not name", fault);
  const Place where = {file, delta.base.chunk};
  if (where.chunk >= sources_[file].chunks.size())
    return bad_delta(chunk, pfn, "rests on a chunk that is not there", fault);
  Fault inner;
  if (!read_base(base, where, delta.base, desc, out, &inner))
    return bad_base(chunk, where, pfn, inner, fault);
  if (!codec::delta_apply(codec, delta.bytes, delta.size, out, kPageBytes))
    return bad_delta(chunk, pfn, "does not decode", fault);
  const pfn::Hash128& hash = source.page_hashes[source.first_page[own.chunk] + delta.slot];
  return pfn::hash128(out, kPageBytes) == hash ||
         bad_delta(chunk, pfn, "gives another page than its hash says", fault);
}

// Each chunk that deltas of this one rest on is read once. Deltas that do not count may rest on
// what is not there any more: zeroes stand for their pages.
bool ImageReader::make_pages(Lane& lane, uint32_t chunk, Fault* fault) {
  if (!lane.deltas) lane.deltas = std::make_unique<DeltaBuffers>();
  DeltaBuffers& own = *lane.deltas;
  const uint64_t* descs = lane.chunk.descs.data();
  uint8_t* const bodies = lane.chunk.bodies.get();
  list_deltas(lane.chunk.view, &own.list);
  std::sort(own.list.begin(), own.list.end(), [](const StoredDelta& a, const StoredDelta& b) {
    return std::tie(a.base.age, a.base.chunk, a.base.slot) <
           std::tie(b.base.age, b.base.chunk, b.base.slot);
  });
  for (const StoredDelta& delta : own.list) {
    uint8_t* const page = bodies + uint64_t(delta.slot) * kPageBytes;
    const uint64_t desc = descs[delta.slot];
    if (!is_current(chunk, delta.slot, desc_pfn(desc)))
      memset(page, 0, kPageBytes);
    else if (!make_page(own.base, own.codec, chunk, delta, desc, page, fault))
      return false;
  }
  return true;
}

bool ImageReader::read_delta(LaneBuffers& lane, uint32_t chunk, uint32_t slot, uint8_t* out,
                             Fault* fault) {
  if (!page_codec_) page_codec_ = std::make_unique<codec::DeltaState>();
  std::vector<StoredDelta> list;
  list_deltas(lane.view, &list);
  const DeltaBase& base = list[slot].base;
  const auto& bases = sources_[places_[chunk].source].bases;
  const uint32_t file = base.age <= bases.size() ? bases[base.age - 1] : 0;
  LaneBuffers& other = page_lane({file, base.chunk});
  return make_page(other, *page_codec_, chunk, list[slot], lane.descs[slot], out, fault);
}

}  // namespace dormouse::image
