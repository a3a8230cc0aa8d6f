#include "step/save_step.h"

#include <algorithm>

#include "step/page_batch.h"

namespace dormouse::step {

bool put_pages(image::Writer& writer, uint32_t lane, const PageList& list, uint64_t counts[16],
               Fault* fault) {
  if (list.n > kBatchPages) return fault->raise("INTERNAL", "more pages than a batch");
  uint64_t descs[kBatchPages];
  uint32_t bodies = 0;
  classify(list, descs, &bodies);
  if (!writer.append(lane, descs, list.n, list.pages, bodies, fault)) return false;
  for (uint32_t i = 0; i < list.n; ++i) ++counts[image::desc_class(descs[i])];
  return true;
}

bool save_step(host::DomainMemory& memory, image::Writer& writer, uint32_t lane, uint64_t first,
               uint64_t count, uint64_t counts[16], Fault* fault) {
  PageBatch& batch = thread_batch();
  const host::FrameMaps maps = memory.maps();
  for (uint64_t done = 0; done < count;) {
    const uint32_t n = uint32_t(std::min<uint64_t>(kBatchPages, count - done));
    uint32_t bodies = 0;
    if (!read_batch(memory, first + done, n, &batch, &bodies, fault)) return false;
    for (uint32_t i = 0; i < bodies; ++i) {
      const int level = host::table_level(host::type_of(batch.body_entries[i]));
      uint8_t* page = batch.pages + uint64_t(i) * host::kPageSize;
      if (level != 0 && !canonicalise_body(maps, batch.body_pfns[i], level, page, fault))
        return false;
    }
    const PageList list = {batch.pfns, batch.entries, n, batch.pages};
    if (!put_pages(writer, lane, list, counts, fault)) return false;
    done += n;
  }
  return writer.end_step(lane, fault);
}

}  // namespace dormouse::step
