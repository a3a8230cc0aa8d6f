// Scratch of one thread for the steps: a batch of pages copied out of a domain, and what they are.
#pragma once
#include <cstdint>

#include "host/host.h"

namespace dormouse::step {

constexpr uint32_t kBatchPages = 256;  // 1 MiB: stays in the core's cache between copy and encode

struct PageBatch {
  alignas(64) uint8_t pages[kBatchPages * host::kPageSize];
  uint64_t entries[kBatchPages];
  uint64_t pfns[kBatchPages];
  uint64_t body_entries[kBatchPages];
  uint64_t descs[kBatchPages];
};

// One batch a thread, allocated at first use.
PageBatch& thread_batch();

// Reads pfns [first, first + n), n <= kBatchPages: entries[] for all of them, pages[] for those
// whose type has a body, in order; *n_bodies says how many. body_entries[] and pfns[] go with
// pages[].
bool read_batch(host::DomainMemory& memory, uint64_t first, uint32_t n, PageBatch* batch,
                uint32_t* n_bodies, Fault* fault);

// Canonicalises one copied table in place. PAGE_TABLE_INVALID naming pfn, level, entry and why.
bool canonicalise_body(const host::FrameMaps& maps, uint64_t pfn, int level, uint8_t* page,
                       Fault* fault);

}  // namespace dormouse::step
