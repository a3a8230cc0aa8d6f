#include "step/page_batch.h"

#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <memory>

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
    batch->pfns[i] = first + i;
    if (!host::has_body(host::type_of(batch->entries[i]))) continue;
    batch->body_pfns[bodies] = first + i;
    batch->body_entries[bodies++] = batch->entries[i];
  }
  *n_bodies = bodies;
  return bodies == 0 ||
         memory.copy_out(batch->body_pfns, batch->body_entries, bodies, batch->pages, fault);
}

bool raise_table_fault(uint64_t pfn, int level, const pfn::TableResult& result, Fault* fault) {
  char text[160];
  std::snprintf(text, sizeof text,
                "page table at pfn %" PRIu64
                " (level %d) cannot be canonicalised: entry %u is "
                "0x%016" PRIx64 ": %s",
                pfn, level, result.index, result.entry, pfn::table_fault_text(result.fault));
  fault->pfn = pfn;
  return fault->raise("PAGE_TABLE_INVALID", text);
}

bool canonicalise_body(const host::FrameMaps& maps, uint64_t pfn, int level, uint8_t* page,
                       Fault* fault) {
  auto* table = reinterpret_cast<uint64_t*>(page);
  const pfn::TableResult result = pfn::canonicalise(maps, level, table, table);
  return result.fault == pfn::TableFault::none || raise_table_fault(pfn, level, result, fault);
}

bool is_vanished(Fault* fault) {
  if (std::strcmp(fault->code, "GUEST_MEMORY_UNREADABLE") != 0) return false;
  *fault = Fault();
  return true;
}

}  // namespace dormouse::step
