#include "step/dirty_copy.h"

#include <sys/mman.h>

#include <algorithm>

#include "pfn/canonicalise.h"
#include "step/page_batch.h"
#include "step/save_step.h"

namespace dormouse::step {
namespace {

constexpr uint32_t kBlockPfns = 1024;  // what one query takes

// A table of a guest stopped anywhere; the page is copied once more where it maps the hypervisor's.
bool canonicalise_anywhere(host::DomainMemory& memory, uint64_t pfn, uint64_t entry, uint8_t* page,
                           Fault* fault) {
  const host::FrameMaps maps = memory.maps();
  const int level = host::table_level(host::type_of(entry));
  auto* table = reinterpret_cast<uint64_t*>(page);
  if (pfn::canonicalise(maps, level, table, table).fault == pfn::TableFault::none) return true;
  if (!memory.copy_out(&pfn, &entry, 1, page, fault)) return false;
  const pfn::TableResult result = pfn::canonicalise_running(maps, level, table, table);
  return result.fault == pfn::TableFault::none || raise_table_fault(pfn, level, result, fault);
}

}  // namespace

DirtyCopy::~DirtyCopy() {
  if (pages_) munmap(pages_, bytes_);
}

bool DirtyCopy::allocate(uint64_t max_pages, Fault* fault) {
  bytes_ = max_pages * host::kPageSize;
  void* at = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (at == MAP_FAILED) return fault->raise("NO_MEMORY", "no memory for the pages of the pause");
  pages_ = static_cast<uint8_t*>(at);
  pfns_.assign(max_pages, 0);
  entries_.assign(max_pages, 0);
  body_at_.assign(max_pages, 0);
  return true;
}

// Queries and copies the n pfns listed at held_, which lie within kBlockPfns of each other.
bool DirtyCopy::copy_block(host::DomainMemory& memory, uint32_t n, bool anywhere, Fault* fault) {
  uint64_t around[kBlockPfns], body_pfns[kBlockPfns], body_entries[kBlockPfns];
  const uint64_t* pfns = pfns_.data() + held_;
  const uint32_t span = uint32_t(pfns[n - 1] - pfns[0] + 1);
  if (!memory.query(pfns[0], span, around, fault)) return false;
  uint32_t bodies = 0;
  for (uint32_t i = 0; i < n; ++i) {
    const uint64_t entry = around[pfns[i] - pfns[0]];
    entries_[held_ + i] = entry;
    body_at_[held_ + i] = uint32_t(bodies_ + bodies);
    if (!host::has_body(host::type_of(entry))) continue;
    body_pfns[bodies] = pfns[i];
    body_entries[bodies++] = entry;
  }
  uint8_t* to = pages_ + bodies_ * host::kPageSize;
  if (bodies != 0 && !memory.copy_out(body_pfns, body_entries, bodies, to, fault)) return false;
  const host::FrameMaps maps = memory.maps();
  for (uint32_t i = 0; i < bodies; ++i) {
    const int level = host::table_level(host::type_of(body_entries[i]));
    if (level == 0) continue;
    uint8_t* page = to + uint64_t(i) * host::kPageSize;
    if (!(anywhere ? canonicalise_anywhere(memory, body_pfns[i], body_entries[i], page, fault)
                   : canonicalise_body(maps, body_pfns[i], level, page, fault)))
      return false;
  }
  held_ += n;
  bodies_ += bodies;
  return true;
}

bool DirtyCopy::copy(host::DomainMemory& memory, const PendingSet& set, bool anywhere,
                     Fault* fault) {
  held_ = bodies_ = 0;
  if (set.count() > max_pages())
    return fault->raise("INTERNAL", "more changed pages than there is room for");
  uint64_t block[kBlockPfns];
  for (uint64_t first = 0; first < set.nr_pfns(); first += kBlockPfns) {
    const uint32_t span = uint32_t(std::min<uint64_t>(kBlockPfns, set.nr_pfns() - first));
    const uint32_t n = set.list(first, span, block);
    std::copy(block, block + n, pfns_.data() + held_);
    if (n != 0 && !copy_block(memory, n, anywhere, fault)) return false;
  }
  return true;
}

bool DirtyCopy::put(image::Writer& writer, uint32_t lane, uint64_t first, uint64_t count,
                    uint64_t counts[16], Fault* fault) {
  if (first > held_ || count > held_ - first)
    return fault->raise("INTERNAL", "pages that were not copied");
  for (uint64_t at = first; at < first + count; at += kBatchPages) {
    const uint32_t n = uint32_t(std::min<uint64_t>(kBatchPages, first + count - at));
    const PageList list = {pfns_.data() + at, entries_.data() + at, n,
                           pages_ + uint64_t(body_at_[at]) * host::kPageSize};
    if (!put_pages(writer, lane, list, counts, fault)) return false;
  }
  return writer.end_step(lane, fault);
}

}  // namespace dormouse::step
