// One bounded piece of a save: pfns of a domain become pages of an image.
#pragma once
#include "host/host.h"
#include "image/writer.h"
#include "step/classify.h"

namespace dormouse::step {

// Reads pfns [first, first + count), canonicalises page tables, finds zero pages and appends all of
// them to the image through `lane`. counts[PageClass] is increased by what was put. Every pfn of
// the range is put exactly once or the step fails.
bool save_step(host::DomainMemory& memory, image::Writer& writer, uint32_t lane, uint64_t first,
               uint64_t count, uint64_t counts[16], Fault* fault);

// Classifies and appends pages whose tables are canonical already. list.n is at most kBatchPages.
bool put_pages(image::Writer& writer, uint32_t lane, const PageList& list, uint64_t counts[16],
               Fault* fault);

}  // namespace dormouse::step
