#include "step/live_pass.h"

#include <algorithm>
#include <cstring>

#include "pfn/canonicalise.h"
#include "step/page_batch.h"
#include "step/save_step.h"

namespace dormouse::step {
namespace {

constexpr uint8_t kNothing = 0xFF;  // no page type
constexpr uint32_t kQueryPages = 1024;

}  // namespace

// A batch on its way into the image. Pages that are left out are marked, so that they are skipped.
struct LivePass::Taken {
  PageBatch& batch;
  bool strict;
  uint32_t n = 0;
  bool left_out[kBatchPages] = {};
};

LivePass::LivePass(uint64_t nr_pfns, bool by_content) : pending_(nr_pfns) {
  if (by_content) {
    content_ = std::make_unique<ContentTracker>(nr_pfns);
    found_.assign((nr_pfns + 7) / 8, 0);
  } else {
    types_.assign(nr_pfns, kNothing);
  }
}

void LivePass::defer(Taken* taken, uint32_t i) {
  const uint64_t pfn = taken->batch.pfns[i];
  taken->left_out[i] = true;
  if (content_)
    content_->forget(pfn);
  else
    types_[pfn] = kNothing;
  pending_.add(pfn);
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
    if (content_)
      content_->record(batch.pfns[i], type, has_body ? page : nullptr);
    else
      types_[batch.pfns[i]] = type;
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

bool LivePass::find_retyped(host::DomainMemory& memory, Fault* fault) {
  const bool known = memory.knows_holes();
  if (!compare_types(memory, fault)) return false;
  // A frame that went may have come elsewhere: where none was, too.
  return memory.knows_holes() == known || compare_types(memory, fault);
}

bool LivePass::compare_types(host::DomainMemory& memory, Fault* fault) {
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
