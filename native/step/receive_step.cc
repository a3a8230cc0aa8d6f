#include "step/receive_step.h"

#include <algorithm>

#include "image/chunk.h"
#include "step/placer.h"

namespace dormouse::step {
namespace {

bool has_content(uint64_t desc) { return image::class_has_content(image::desc_class(desc)); }

// Several threads mark and unmark, each its own pages.
bool marked(const uint8_t& mark) { return __atomic_load_n(&mark, __ATOMIC_ACQUIRE) != 0; }
void set_mark(uint8_t& mark, uint8_t to) { __atomic_store_n(&mark, to, __ATOMIC_RELEASE); }

}  // namespace

Admitted admit_pages(const uint64_t* descs, uint32_t n_pages, const KnownPages& known,
                     uint64_t* populate) {
  Admitted out = {0, false, 0};
  for (uint32_t i = 0; i < n_pages; ++i)
    out.highest_pfn = std::max(out.highest_pfn, image::desc_pfn(descs[i]));
  if (out.highest_pfn >= known.n) return out;
  for (uint32_t i = 0; i < n_pages && !out.overlaps; ++i)
    out.overlaps = has_content(descs[i]) && marked(known.placing[image::desc_pfn(descs[i])]);
  if (out.overlaps) return out;
  for (uint32_t i = 0; i < n_pages; ++i) {
    const uint64_t pfn = image::desc_pfn(descs[i]);
    known.types[pfn] = image::desc_type(descs[i]);
    const uint8_t page_class = image::desc_class(descs[i]);
    if (image::class_has_content(page_class)) set_mark(known.placing[pfn], 1);
    if (image::class_has_content(page_class) || page_class == image::kClassAlloc)
      populate[out.n_populate++] = pfn;
  }
  return out;
}

bool place_pages(host::DomainMemory& memory, const PageBodies& pages, Fault* fault) {
  Placer placer(memory);
  const uint8_t* body = pages.bodies;
  const uint8_t* end = body + pages.n_bodies * host::kPageSize;
  for (uint32_t i = 0; i < pages.n_pages; ++i) {
    const uint64_t pfn = image::desc_pfn(pages.descs[i]);
    const uint8_t page_class = image::desc_class(pages.descs[i]);
    if (image::class_has_body(page_class)) {
      if (body == end) return fault->raise("INTERNAL", "fewer bodies than pages");
      if (!placer.add(pfn, body, fault)) return false;
      body += host::kPageSize;
    } else if (page_class == image::kClassZero) {
      // What comes before it is written before it: it may be a body of the same page.
      if (!placer.flush(fault) || !memory.copy_in(&pfn, 1, kZeroPage, fault)) return false;
    }
  }
  return placer.flush(fault);
}

void unmark_pages(const uint64_t* descs, uint32_t n_pages, uint8_t* placing, uint64_t n) {
  for (uint32_t i = 0; i < n_pages; ++i) {
    const uint64_t pfn = image::desc_pfn(descs[i]);
    if (pfn < n && has_content(descs[i])) set_mark(placing[pfn], 0);
  }
}

}  // namespace dormouse::step
