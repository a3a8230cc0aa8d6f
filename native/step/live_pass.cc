#include "step/live_pass.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "pfn/canonicalise.h"
#include "step/page_batch.h"
#include "step/save_step.h"

namespace dormouse::step {
namespace {

constexpr uint8_t kNothing = 0xFF;  // no page type
constexpr uint32_t kQueryPages = 1024;
constexpr uint64_t kPresent = 1, kFrameBits = ((1ull << 52) - 1) & ~0xFFFull;  // of a table's entry

}  // namespace

// A batch on its way into the image. Pages that are left out are marked, so that they are skipped.
struct LivePass::Taken {
  PageBatch& batch;
  bool strict;
  uint32_t n = 0;
  bool left_out[kBatchPages] = {};
};

LivePass::LivePass(uint64_t nr_pfns, bool by_content)
    : pending_(nr_pfns), taken_(nr_pfns), types_(nr_pfns, kNothing), mapped_((nr_pfns + 63) / 64) {
  taken_.clear();
  if (!by_content) return;
  content_ = std::make_unique<ContentTracker>(nr_pfns);
  found_.assign((nr_pfns + 7) / 8, 0);
}

void LivePass::begin_epoch(bool whole) {
  taken_.clear();
  if (whole) pending_.fill();
}

void LivePass::abort_epoch() {
  uint64_t block[kQueryPages];
  for (uint64_t first = 0; first < taken_.nr_pfns(); first += kQueryPages) {
    const uint32_t n = uint32_t(std::min<uint64_t>(kQueryPages, taken_.nr_pfns() - first));
    const uint32_t count = taken_.take(first, n, block);
    for (uint32_t i = 0; i < count; ++i) forget(block[i]);
  }
}

// No image holds it as it is.
void LivePass::forget(uint64_t pfn) {
  if (content_) content_->forget(pfn);
  types_[pfn] = kNothing;
  pending_.add(pfn);
}

// What the image holds of it; page is null for a type without a body, and canonical for a table.
void LivePass::record(uint64_t pfn, uint8_t type, const uint8_t* page) {
  if (content_) content_->record(pfn, type, page);
  types_[pfn] = type;
  if (host::table_level(type) != 0) note_mapped(page);
}

void LivePass::defer(Taken* taken, uint32_t i) {
  taken->left_out[i] = true;
  forget(taken->batch.pfns[i]);
}

// Copies the bodies, one after the other where one of them vanished.
bool LivePass::read_bodies(host::DomainMemory& memory, Taken* taken, Fault* fault) {
  PageBatch& batch = taken->batch;
  uint32_t bodies = 0;
  for (uint32_t i = 0; i < taken->n; ++i) {
    if (!host::has_body(host::type_of(batch.entries[i]))) continue;
    batch.body_pfns[bodies] = batch.pfns[i];
    batch.body_entries[bodies++] = batch.entries[i];
  }
  if (bodies == 0) return true;
  if (memory.copy_out(batch.body_pfns, batch.body_entries, bodies, batch.pages, fault)) return true;
  if (taken->strict || !is_vanished(fault)) return false;
  for (uint32_t i = 0, body = 0; i < taken->n; ++i) {
    if (!host::has_body(host::type_of(batch.entries[i]))) continue;
    uint8_t* page = batch.pages + uint64_t(body++) * host::kPageSize;
    if (memory.copy_out(&batch.pfns[i], &batch.entries[i], 1, page, fault)) continue;
    if (!is_vanished(fault)) return false;
    defer(taken, i);
  }
  return true;
}

bool LivePass::settle_tables(const host::FrameMaps& maps, Taken* taken, Fault* fault) {
  PageBatch& batch = taken->batch;
  for (uint32_t i = 0, body = 0; i < taken->n; ++i) {
    const uint8_t type = host::type_of(batch.entries[i]);
    if (!host::has_body(type)) continue;
    uint8_t* page = batch.pages + uint64_t(body++) * host::kPageSize;
    const int level = host::table_level(type);
    if (level == 0 || taken->left_out[i]) continue;
    if (canonicalise_body(maps, batch.pfns[i], level, page, fault)) continue;
    if (taken->strict) return false;
    *fault = Fault();
    defer(taken, i);
  }
  return true;
}

// Of a table in canonical form.
void LivePass::note_mapped(const uint8_t* table) {
  const auto* entries = reinterpret_cast<const uint64_t*>(table);
  for (uint32_t i = 0; i < host::kPageSize / 8; ++i) {
    const uint64_t pfn = (entries[i] & kFrameBits) >> 12;
    if (!(entries[i] & kPresent) || pfn >= pending_.nr_pfns()) continue;
    std::atomic<uint64_t>& word = mapped_[pfn / 64];
    const uint64_t bit = 1ull << pfn % 64;
    if (!(word.load(std::memory_order_relaxed) & bit))
      word.fetch_or(bit, std::memory_order_relaxed);
  }
}

// Records what the image will hold and closes the gaps of what is left out.
void LivePass::keep(Taken* taken) {
  PageBatch& batch = taken->batch;
  uint32_t out = 0, body = 0, body_out = 0;
  for (uint32_t i = 0; i < taken->n; ++i) {
    const uint8_t type = host::type_of(batch.entries[i]);
    const bool has_body = host::has_body(type);
    const uint8_t* page = batch.pages + uint64_t(body) * host::kPageSize;
    body += has_body;
    if (taken->left_out[i]) continue;
    record(batch.pfns[i], type, has_body ? page : nullptr);
    batch.pfns[out] = batch.pfns[i];
    batch.entries[out++] = batch.entries[i];
    if (!has_body) continue;
    uint8_t* place = batch.pages + uint64_t(body_out++) * host::kPageSize;
    if (place != page) std::memcpy(place, page, host::kPageSize);
  }
  taken->n = out;
}

// Takes the pending pages of [first, first + n) out of the set and reads them.
bool LivePass::read(host::DomainMemory& memory, uint64_t first, uint32_t n, Taken* taken,
                    Fault* fault) {
  PageBatch& batch = taken->batch;
  taken->n = pending_.take(first, n, batch.pfns);
  if (taken->n == 0) return true;
  for (uint32_t i = 0; i < taken->n; ++i) taken_.add(batch.pfns[i]);
  uint64_t around[kBatchPages];
  const uint64_t low = batch.pfns[0];
  if (!memory.query(low, uint32_t(batch.pfns[taken->n - 1] - low + 1), around, fault)) return false;
  for (uint32_t i = 0; i < taken->n; ++i) batch.entries[i] = around[batch.pfns[i] - low];
  if (!read_bodies(memory, taken, fault)) return false;
  if (!settle_tables(memory.maps(), taken, fault)) return false;
  keep(taken);
  return true;
}

bool LivePass::seek(host::DomainMemory& memory, uint64_t first, uint64_t count, Fault* fault) {
  uint8_t bitmap[kBatchPages / 8];
  uint64_t changed = 0;
  if (!content_->changed_since(memory, first, count, bitmap, &changed, fault)) return false;
  if (changed != 0) pending_.merge(first, count, bitmap);
  return true;
}

bool LivePass::step(host::DomainMemory& memory, image::Writer& writer, uint32_t lane, PassKind kind,
                    uint64_t first, uint64_t count, uint64_t counts[16], Fault* fault) {
  for (uint64_t at = first; at < first + count; at += kBatchPages) {
    const uint32_t n = uint32_t(std::min<uint64_t>(kBatchPages, first + count - at));
    if (kind == PassKind::seek && !seek(memory, at, n, fault)) return false;
    Taken taken{thread_batch(), kind == PassKind::standing};
    if (!read(memory, at, n, &taken, fault)) return false;
    const PageList list = {taken.batch.pfns, taken.batch.entries, taken.n, taken.batch.pages};
    if (taken.n != 0 && !put_pages(writer, lane, list, counts, fault)) return false;
  }
  return writer.end_step(lane, fault);
}

bool LivePass::find_changed(host::DomainMemory& memory, unsigned threads, Fault* fault) {
  uint64_t changed = 0;
  if (!content_->changed_in_all(memory, threads, found_.data(), &changed, fault)) return false;
  if (changed != 0) pending_.merge(0, pending_.nr_pfns(), found_.data());
  return true;
}

bool LivePass::merge_log(host::DomainMemory& memory, uint8_t* bitmap, Fault* fault) {
  const bool followed = memory.follow_log(bitmap, pending_.nr_pfns(), fault);
  pending_.merge(0, pending_.nr_pfns(), bitmap);
  return followed;
}

bool LivePass::find_mapped_holes(host::DomainMemory& memory, Fault* fault) {
  // By the bits, of which a translated domain has none, as its pfn space is mostly holes.
  for (uint64_t first = 0; first < types_.size(); first += 64) {
    uint64_t bits = mapped_[first / 64].load(std::memory_order_relaxed);
    for (; bits != 0; bits &= bits - 1) {
      const uint64_t pfn = first + uint64_t(__builtin_ctzll(bits));
      if (types_[pfn] != host::kXtab) continue;
      uint64_t entry;
      if (!memory.query(pfn, 1, &entry, fault)) return false;
      if (host::type_of(entry) != host::kXtab) pending_.add(pfn);
    }
  }
  return true;
}

bool LivePass::capture(host::DomainMemory& memory, const CaptureHow& how, Fault* fault) {
  copied_ = false;
  copying_ns_ = 0;
  if (content_       ? !find_changed(memory, how.threads, fault)
      : how.thorough ? !find_retyped(memory, fault)
                     : !find_mapped_holes(memory, fault))
    return false;
  if (pending_.count() > how.max_pages) return true;
  const auto began = std::chrono::steady_clock::now();
  copied_ = copy_.copy(memory, pending_, how.anywhere, fault);
  const std::chrono::nanoseconds took = std::chrono::steady_clock::now() - began;
  copying_ns_ = uint64_t(took.count());
  return copied_;
}

bool LivePass::put(image::Writer& writer, uint32_t lane, uint64_t first, uint64_t count,
                   uint64_t counts[16], Fault* fault) {
  copy_.for_each(first, count, [&](uint64_t pfn, uint64_t entry, const uint8_t* page) {
    taken_.add(pfn);
    pending_.remove(pfn);
    record(pfn, host::type_of(entry), page);
  });
  return copy_.put(writer, lane, first, count, counts, fault);
}

bool LivePass::find_retyped(host::DomainMemory& memory, Fault* fault) {
  uint64_t entries[kQueryPages];
  for (uint64_t first = 0; first < types_.size(); first += kQueryPages) {
    const uint32_t n = uint32_t(std::min<uint64_t>(kQueryPages, types_.size() - first));
    if (!memory.query(first, n, entries, fault)) return false;
    for (uint32_t i = 0; i < n; ++i)
      if (host::type_of(entries[i]) != types_[first + i]) pending_.add(first + i);
  }
  return true;
}

}  // namespace dormouse::step
