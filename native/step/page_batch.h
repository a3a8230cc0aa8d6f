// Scratch of one thread for the steps: a batch of pages copied out of a domain, and what they are.
#pragma once
#include <cstdint>

#include "host/host.h"
#include "pfn/canonicalise.h"

namespace dormouse::step {

constexpr uint32_t kBatchPages =
    64;  // 256 KiB: stays in the core's second cache between copy and encode

struct PageBatch {
  alignas(64) uint8_t pages[kBatchPages * host::kPageSize];
  uint64_t pfns[kBatchPages];
  uint64_t entries[kBatchPages];
  uint64_t body_pfns[kBatchPages];
  uint64_t body_entries[kBatchPages];
};

// One batch a thread, allocated at first use.
PageBatch& thread_batch();

// Reads pfns [first, first + n), n <= kBatchPages: pfns[] and entries[] for all of them, pages[]
// for those whose type has a body, in order; *n_bodies says how many. body_entries[] and
// body_pfns[] go with pages[].
bool read_batch(host::DomainMemory& memory, uint64_t first, uint32_t n, PageBatch* batch,
                uint32_t* n_bodies, Fault* fault);

// PAGE_TABLE_INVALID naming pfn, level, entry and why; returns false.
bool raise_table_fault(uint64_t pfn, int level, const pfn::TableResult& result, Fault* fault);
// Canonicalises one copied table in place. Fault: as above.
bool canonicalise_body(const host::FrameMaps& maps, uint64_t pfn, int level, uint8_t* page,
                       Fault* fault);

// True, and the fault is taken back, if it says that a page could not be read: while the guest runs
// it may just have been given back.
bool is_vanished(Fault* fault);

}  // namespace dormouse::step
