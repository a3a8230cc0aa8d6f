#include "step/image_diff.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "host/host.h"
#include "image/content_root.h"

namespace dormouse::step {

// What an image has from one pfn on, up to `end`.
struct ImageDiff::Part {
  uint64_t end;
  uint8_t page_class, type;
  const image::PlacedRun* run;  // null: beyond its pfns
};

ImageDiff::ImageDiff(std::shared_ptr<image::ImageReader> from,
                     std::shared_ptr<image::ImageReader> to,
                     const std::vector<uint32_t>& same_files)
    : readers_{std::move(from), std::move(to)} {
  const uint64_t nr_pfns = std::max(readers_[kFrom]->nr_pfns(), readers_[kTo]->nr_pfns());
  size_t runs[2] = {};
  for (uint64_t first = 0; first < nr_pfns;) {
    const Part was = part_at(kFrom, first, &runs[kFrom]), is = part_at(kTo, first, &runs[kTo]);
    const uint64_t end = std::min({was.end, is.end, nr_pfns});
    add(first, end, was, is, same_place(was, is, first, same_files));
    first = end;
  }
  // What `from` has as zero is in no chunk of it.
  hashes_.assign(unsure_, image::zero_page_hash());
  differs_.assign(unsure_, 0);
}

// `run`: where the pfn before was.
ImageDiff::Part ImageDiff::part_at(DiffSide side, uint64_t pfn, size_t* run) const {
  const image::ReaderMap& map = readers_[side]->map();
  if (pfn >= map.nr_pfns()) return {~0ull, image::kClassNoFrame, host::kXtab, nullptr};
  while (map.end_of(*run) <= pfn) ++*run;
  const image::PlacedRun& at = map.runs()[*run];
  return {map.end_of(*run), at.page_class, at.type, &at};
}

bool ImageDiff::same_place(const Part& from, const Part& to, uint64_t pfn,
                           const std::vector<uint32_t>& same_files) const {
  if (!image::class_has_body(from.page_class) || !image::class_has_body(to.page_class))
    return false;
  const auto& was = readers_[kFrom]->place(from.run->chunk);
  const auto& is = readers_[kTo]->place(to.run->chunk);
  return same_files[was.source] == is.source && was.chunk == is.chunk &&
         from.run->slot + (pfn - from.run->first) == to.run->slot + (pfn - to.run->first);
}

void ImageDiff::add(uint64_t first, uint64_t end, const Part& from, const Part& to,
                    bool same_place) {
  const bool zeroes = from.page_class == image::kClassZero && to.page_class == image::kClassZero;
  const bool content =
      image::class_has_content(from.page_class) && image::class_has_content(to.page_class);
  const bool unsure = from.type == to.type && content && !zeroes;
  const bool same = from.type == to.type && (content ? zeroes : from.page_class == to.page_class);
  if (same || same_place) return;
  segments_.push_back({first, end, {from.page_class, to.page_class}, unsure ? unsure_ : kCertain});
  if (unsure) unsure_ += end - first;
}

void ImageDiff::blank(DiffSide side, uint64_t pfn, uint32_t first, uint32_t end) {
  blanks_[side][pfn].push_back({first, end});
}

const ImageDiff::Segment* ImageDiff::find(uint64_t pfn) const {
  const auto after =
      std::upper_bound(segments_.begin(), segments_.end(), pfn,
                       [](uint64_t wanted, const Segment& one) { return wanted < one.first; });
  if (after == segments_.begin() || pfn >= (after - 1)->end) return nullptr;
  return &*(after - 1);
}

void ImageDiff::note(DiffSide side, const Segment& segment, uint64_t pfn,
                     const pfn::Hash128& hash) {
  const uint64_t at = segment.at + (pfn - segment.first);
  if (side == kFrom)
    hashes_[at] = hash;
  else
    differs_[at] = !(hash == hashes_[at]);
}

// False if not all of the segment's pages are known by that.
bool ImageDiff::take_stored(DiffSide side, const Segment& segment, const image::PlacedRun& run) {
  if (!readers_[side]->hash_stored(run)) return false;
  bool all = true;
  for (uint64_t pfn = segment.first; pfn < segment.end; ++pfn)
    if (blanks_[side].count(pfn))
      all = false;
    else
      note(side, segment, pfn, readers_[side]->page_hash(run, pfn));
  return all;
}

std::vector<Piece> ImageDiff::seek(DiffSide side, uint64_t most) {
  const image::ReaderMap& map = readers_[side]->map();
  std::vector<bool> sought(readers_[side]->nr_chunks());
  for (const Segment& segment : segments_) {
    if (segment.at == kCertain || !image::class_has_body(segment.classes[side])) continue;
    const image::PlacedRun& run = map.runs()[map.find(segment.first)];
    if (!take_stored(side, segment, run))
      readers_[side]->mark_chunks(segment.first, segment.end - segment.first, &sought);
  }
  std::vector<Piece> pieces;
  for (uint64_t chunk = 0; chunk < sought.size(); ++chunk) {
    if (!sought[chunk]) continue;
    const bool goes_on = !pieces.empty() && pieces.back().count < most &&
                         pieces.back().first + pieces.back().count == chunk;
    if (goes_on)
      pieces.back().count++;
    else
      pieces.push_back({chunk, 1});
  }
  return pieces;
}

pfn::Hash128 ImageDiff::hash_of(DiffSide side, uint64_t pfn, const uint8_t* body) const {
  const auto blanks = blanks_[side].find(pfn);
  if (blanks == blanks_[side].end()) return pfn::hash128(body, host::kPageSize);
  alignas(64) uint8_t page[host::kPageSize];
  std::memcpy(page, body, sizeof page);
  for (const auto& [first, end] : blanks->second) std::memset(page + first, 0, end - first);
  return pfn::hash128(page, sizeof page);
}

bool ImageDiff::look(DiffSide side, uint32_t lane, uint32_t first, uint32_t count, Fault* fault) {
  image::ImageReader& reader = *readers_[side];
  for (uint32_t i = first; i < first + count; ++i) {
    image::DecodedChunk chunk;
    if (!reader.read_chunk(lane, i, &chunk, fault)) return false;
    for (uint32_t slot = 0; slot < chunk.n_pages; ++slot) {
      const uint64_t pfn = image::desc_pfn(chunk.descs[slot]);
      const Segment* segment = find(pfn);
      if (!segment || segment->at == kCertain || !reader.is_current(i, slot, pfn)) continue;
      const uint8_t* body = chunk.bodies + uint64_t(slot) * host::kPageSize;
      note(side, *segment, pfn, hash_of(side, pfn, body));
    }
  }
  return true;
}

bool ImageDiff::differs(const Segment& segment, uint64_t pfn) const {
  if (segment.at == kCertain) return true;
  const uint64_t at = segment.at + (pfn - segment.first);
  if (segment.classes[kTo] != image::kClassZero) return differs_[at];
  return !(hashes_[at] == image::zero_page_hash());
}

std::vector<ClassDiff> ImageDiff::differing() const {
  std::map<std::pair<uint8_t, uint8_t>, std::vector<Piece>> found;
  for (const Segment& segment : segments_) {
    std::vector<Piece>& runs = found[{segment.classes[kFrom], segment.classes[kTo]}];
    for (uint64_t pfn = segment.first; pfn < segment.end;) {
      // All of those that are certain at once.
      const uint64_t next = segment.at == kCertain ? segment.end : pfn + 1;
      if (differs(segment, pfn)) {
        if (!runs.empty() && runs.back().first + runs.back().count == pfn)
          runs.back().count += next - pfn;
        else
          runs.push_back({pfn, next - pfn});
      }
      pfn = next;
    }
  }
  std::vector<ClassDiff> out;
  for (auto& [classes, runs] : found)
    if (!runs.empty()) out.push_back({classes.first, classes.second, std::move(runs)});
  return out;
}

}  // namespace dormouse::step
