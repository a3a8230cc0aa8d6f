// One bounded piece of a save: pfns of a domain become pages of an image.
#pragma once
#include "host/host.h"
#include "image/writer.h"
#include "step/content_tracker.h"

namespace dormouse::step {

// Reads pfns [first, first + count), canonicalises page tables, finds zero pages and appends all of
// them to the image through `lane`. counts[PageClass] is increased by what was put. Every pfn of
// the range is put exactly once or the step fails. A tracker, if given, learns what was put.
bool save_step(host::DomainMemory& memory, image::Writer& writer, uint32_t lane, uint64_t first,
               uint64_t count, uint64_t counts[16], Fault* fault,
               ContentTracker* tracker = nullptr);

}  // namespace dormouse::step
