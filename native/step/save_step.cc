#include "step/save_step.h"

#include <algorithm>
#include <cstring>

#include "pfn/page_scan.h"
#include "step/page_batch.h"

namespace dormouse::step {
namespace {

uint8_t class_without_body(uint8_t type) {
  if (type == host::kBroken) return image::kClassBroken;
  if (type == host::kXalloc) return image::kClassAlloc;
  return image::kClassNoFrame;
}

// Classifies the batch; bodies that travel are moved together at the front of batch->pages.
bool classify(const host::FrameMaps& maps, uint64_t first, uint32_t n, PageBatch* batch,
              ContentTracker* tracker, uint32_t* kept, Fault* fault) {
  uint32_t body = 0, out = 0;
  for (uint32_t i = 0; i < n; ++i) {
    const uint8_t type = host::type_of(batch->entries[i]);
    const uint64_t pfn = first + i;
    if (!host::has_body(type)) {
      batch->descs[i] = image::page_desc(pfn, class_without_body(type), type);
      if (tracker) tracker->record(pfn, type, nullptr);
      continue;
    }
    uint8_t* page = batch->pages + uint64_t(body++) * host::kPageSize;
    const int level = host::table_level(type);
    uint8_t page_class = image::kClassData;
    if (level != 0) {
      if (!canonicalise_body(maps, pfn, level, page, fault)) return false;
      page_class = image::kClassTable;
    } else if (pfn::is_zero_page(page)) {
      page_class = image::kClassZero;
    }
    batch->descs[i] = image::page_desc(pfn, page_class, type);
    if (tracker) tracker->record(pfn, type, page);
    if (!image::class_has_body(page_class)) continue;
    uint8_t* place = batch->pages + uint64_t(out++) * host::kPageSize;
    if (place != page) std::memcpy(place, page, host::kPageSize);
  }
  *kept = out;
  return true;
}

}  // namespace

bool save_step(host::DomainMemory& memory, image::Writer& writer, uint32_t lane, uint64_t first,
               uint64_t count, uint64_t counts[16], Fault* fault, ContentTracker* tracker) {
  PageBatch& batch = thread_batch();
  const host::FrameMaps maps = memory.maps();
  for (uint64_t done = 0; done < count;) {
    const uint32_t n = uint32_t(std::min<uint64_t>(kBatchPages, count - done));
    uint32_t bodies = 0, kept = 0;
    if (!read_batch(memory, first + done, n, &batch, &bodies, fault)) return false;
    if (!classify(maps, first + done, n, &batch, tracker, &kept, fault)) return false;
    if (!writer.append(lane, batch.descs, n, batch.pages, kept, fault)) return false;
    for (uint32_t i = 0; i < n; ++i) ++counts[image::desc_class(batch.descs[i])];
    done += n;
  }
  return true;
}

}  // namespace dormouse::step
