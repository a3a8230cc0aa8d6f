#include "step/digest_step.h"

#include <algorithm>

#include "image/content_root.h"
#include "step/page_batch.h"

namespace dormouse::step {

namespace {

constexpr pfn::Hash128 kNoHash = {0, 0};
constexpr size_t kFeedWords = 1u << 14;

}  // namespace

// Runs of equal pages, hashed as they come: each piece with the hash of what was before it.
class DigestTable::Feed {
 public:
  void add(uint64_t count, const Entry& entry) {
    if (count == 0) return;
    if (count_ && entry.type == entry_.type && entry.hash == entry_.hash) {
      count_ += count;
      return;
    }
    flush_run();
    entry_ = entry;
    count_ = count;
  }
  pfn::Hash128 finish() {
    flush_run();
    hash_words();
    return {words_[0], words_[1]};
  }

 private:
  void flush_run() {
    if (count_ == 0) return;
    words_.insert(words_.end(), {count_, entry_.type, entry_.hash.low, entry_.hash.high});
    if (words_.size() >= kFeedWords) hash_words();
  }
  void hash_words() {
    const pfn::Hash128 hash = pfn::hash128(words_.data(), words_.size() * sizeof words_[0]);
    words_.assign({hash.low, hash.high});
  }

  std::vector<uint64_t> words_ = {0, 0};
  Entry entry_ = {kNoHash, 0};
  uint64_t count_ = 0;
};

DigestTable::DigestTable(uint64_t nr_pfns)
    : nr_pfns_(nr_pfns),
      spans_({{0, 0, {kNoHash, 0}}}),
      hashes_(nr_pfns, kNoHash),
      types_(nr_pfns, host::kXtab) {}

DigestTable::DigestTable(const image::ReaderMap& map) : nr_pfns_(map.nr_pfns()) {
  uint64_t stored = 0;
  for (size_t i = 0; i < map.runs().size(); ++i) {
    const image::PlacedRun& run = map.runs()[i];
    const bool has_body = image::class_has_body(run.page_class);
    const bool zero = run.page_class == image::kClassZero;
    const bool goes_on = has_body && !spans_.empty() && spans_.back().base != kBlank;
    if (!goes_on)
      spans_.push_back({run.first,
                        has_body ? stored : kBlank,
                        {zero ? image::zero_page_hash() : kNoHash, run.type}});
    if (has_body) stored += map.count_of(i);
  }
  hashes_.assign(stored, kNoHash);
  types_.assign(stored, host::kXtab);
}

const DigestTable::Span& DigestTable::span_of(uint64_t pfn) const {
  const auto after =
      std::upper_bound(spans_.begin(), spans_.end(), pfn,
                       [](uint64_t wanted, const Span& span) { return wanted < span.first; });
  return *(after - 1);
}

void DigestTable::add_patch(const Patch& patch) {
  std::lock_guard<std::mutex> hold(patch_lock_);
  patches_.push_back(patch);
}

void DigestTable::set(uint64_t pfn, uint8_t type, const uint8_t* page) {
  const Entry entry = {page ? pfn::hash128(page, host::kPageSize) : kNoHash, type};
  const Span& span = span_of(pfn);
  if (span.base == kBlank) return add_patch({pfn, false, entry});
  types_[span.base + (pfn - span.first)] = entry.type;
  hashes_[span.base + (pfn - span.first)] = entry.hash;
}

void DigestTable::blank(uint64_t pfn) {
  const Span& span = span_of(pfn);
  if (span.base == kBlank) return add_patch({pfn, true, {}});
  hashes_[span.base + (pfn - span.first)] = kNoHash;
}

void DigestTable::feed_blanks(const Span& span, uint64_t end, size_t* patch, Feed* feed) const {
  uint64_t next = span.first;
  while (*patch < patches_.size() && patches_[*patch].pfn < end) {
    const uint64_t pfn = patches_[*patch].pfn;
    Entry entry = span.blank;
    for (; *patch < patches_.size() && patches_[*patch].pfn == pfn; ++*patch)
      if (patches_[*patch].blanks)
        entry.hash = kNoHash;
      else
        entry = patches_[*patch].entry;
    feed->add(pfn - next, span.blank);
    feed->add(1, entry);
    next = pfn + 1;
  }
  feed->add(end - next, span.blank);
}

pfn::Hash128 DigestTable::finish() {
  std::stable_sort(patches_.begin(), patches_.end(),
                   [](const Patch& a, const Patch& b) { return a.pfn < b.pfn; });
  Feed feed;
  size_t patch = 0;
  for (size_t i = 0; i < spans_.size(); ++i) {
    const Span& span = spans_[i];
    const uint64_t end = i + 1 < spans_.size() ? spans_[i + 1].first : nr_pfns_;
    if (span.base == kBlank) {
      feed_blanks(span, end, &patch, &feed);
      continue;
    }
    for (uint64_t k = span.base; k < span.base + (end - span.first); ++k)
      feed.add(1, {hashes_[k], types_[k]});
  }
  return feed.finish();
}

bool digest_domain_step(host::DomainMemory& memory, DigestTable& table, uint64_t first,
                        uint64_t count, Fault* fault) {
  PageBatch& batch = thread_batch();
  const host::FrameMaps maps = memory.maps();
  for (uint64_t done = 0; done < count;) {
    const uint32_t n = uint32_t(std::min<uint64_t>(kBatchPages, count - done));
    uint32_t bodies = 0;
    if (!read_batch(memory, first + done, n, &batch, &bodies, fault)) return false;
    uint8_t* page = batch.pages;
    for (uint32_t i = 0; i < n; ++i) {
      const uint8_t type = host::type_of(batch.entries[i]);
      const uint64_t pfn = first + done + i;
      if (!host::has_body(type)) {
        table.set(pfn, type, nullptr);
        continue;
      }
      const int level = host::table_level(type);
      if (level != 0 && !canonicalise_body(maps, pfn, level, page, fault)) return false;
      table.set(pfn, type, page);
      page += host::kPageSize;
    }
    done += n;
  }
  return true;
}

bool digest_image_step(image::Reader& reader, DigestTable& table, uint32_t lane, uint32_t first,
                       uint32_t count, Fault* fault) {
  for (uint32_t i = first; i < first + count; ++i) {
    image::DecodedChunk chunk;
    if (!reader.read_chunk(lane, i, &chunk, fault)) return false;
    for (uint32_t slot = 0; slot < chunk.n_pages; ++slot) {
      const uint64_t desc = chunk.descs[slot];
      const uint64_t pfn = image::desc_pfn(desc);
      if (pfn < table.nr_pfns() && reader.is_current(i, slot, pfn))
        table.set(pfn, image::desc_type(desc), chunk.bodies + uint64_t(slot) * host::kPageSize);
    }
  }
  return true;
}

}  // namespace dormouse::step
