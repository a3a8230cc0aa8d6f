#include "step/page_batch.h"

#include <cinttypes>
#include <cstdio>
#include <memory>

#include "pfn/canonicalise.h"

namespace dormouse::step {

PageBatch& thread_batch() {
  static thread_local std::unique_ptr<PageBatch> batch;
  if (!batch) batch = std::make_unique<PageBatch>();
  return *batch;
}

bool read_batch(host::DomainMemory& memory, uint64_t first, uint32_t n, PageBatch* batch,
                uint32_t* n_bodies, Fault* fault) {
  if (!memory.query(first, n, batch->entries, fault)) return false;
  uint32_t bodies = 0;
  for (uint32_t i = 0; i < n; ++i) {
    if (!host::has_body(host::type_of(batch->entries[i]))) continue;
    batch->pfns[bodies] = first + i;
    batch->body_entries[bodies++] = batch->entries[i];
  }
  *n_bodies = bodies;
  return bodies == 0 ||
         memory.copy_out(batch->pfns, batch->body_entries, bodies, batch->pages, fault);
}

bool canonicalise_body(const host::FrameMaps& maps, uint64_t pfn, int level, uint8_t* page,
                       Fault* fault) {
  auto* table = reinterpret_cast<uint64_t*>(page);
  const pfn::TableResult result = pfn::canonicalise(maps, level, table, table);
  if (result.fault == pfn::TableFault::none) return true;
  char text[160];
  std::snprintf(text, sizeof text,
                "page table at pfn %" PRIu64
                " (level %d) cannot be canonicalised: entry %u is "
                "0x%016" PRIx64 ": %s",
                pfn, level, result.index, result.entry, pfn::table_fault_text(result.fault));
  fault->pfn = pfn;
  return fault->raise("PAGE_TABLE_INVALID", text);
}

}  // namespace dormouse::step
