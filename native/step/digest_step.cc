#include "step/digest_step.h"

#include <algorithm>

#include "image/content_root.h"
#include "step/page_batch.h"

namespace dormouse::step {

DigestTable::DigestTable(uint64_t nr_pfns)
    : hashes_(nr_pfns, pfn::Hash128{0, 0}), types_(nr_pfns, host::kXtab) {}

void DigestTable::set(uint64_t pfn, uint8_t type, const uint8_t* page) {
  set_hash(pfn, type, page ? pfn::hash128(page, host::kPageSize) : pfn::Hash128{0, 0});
}

void DigestTable::set_hash(uint64_t pfn, uint8_t type, const pfn::Hash128& hash) {
  types_[pfn] = type;
  hashes_[pfn] = hash;
}

void DigestTable::blank(uint64_t pfn) { hashes_[pfn] = pfn::Hash128{0, 0}; }

pfn::Hash128 DigestTable::finish() const {
  const pfn::Hash128 parts[2] = {
      pfn::hash128(hashes_.data(), hashes_.size() * sizeof hashes_[0]),
      pfn::hash128(types_.data(), types_.size()),
  };
  return pfn::hash128(parts, sizeof parts);
}

bool digest_domain_step(host::DomainMemory& memory, DigestTable& table, uint64_t first,
                        uint64_t count, Fault* fault) {
  PageBatch& batch = thread_batch();
  const host::FrameMaps maps = memory.maps();
  for (uint64_t done = 0; done < count;) {
    const uint32_t n = uint32_t(std::min<uint64_t>(kBatchPages, count - done));
    uint32_t bodies = 0;
    if (!read_batch(memory, first + done, n, &batch, &bodies, fault)) return false;
    uint8_t* page = batch.pages;
    for (uint32_t i = 0; i < n; ++i) {
      const uint8_t type = host::type_of(batch.entries[i]);
      const uint64_t pfn = first + done + i;
      if (!host::has_body(type)) {
        table.set(pfn, type, nullptr);
        continue;
      }
      const int level = host::table_level(type);
      if (level != 0 && !canonicalise_body(maps, pfn, level, page, fault)) return false;
      table.set(pfn, type, page);
      page += host::kPageSize;
    }
    done += n;
  }
  return true;
}

static void digest_blanks(DigestTable& table, const image::BlankPages& blanks) {
  const bool zero = blanks.page_class == image::kClassZero;
  const pfn::Hash128 hash = zero ? image::zero_page_hash() : pfn::Hash128{0, 0};
  const uint64_t end = std::min(blanks.first + blanks.count, table.nr_pfns());
  for (uint64_t pfn = blanks.first; pfn < end; ++pfn) table.set_hash(pfn, blanks.type, hash);
}

bool digest_image_step(image::Reader& reader, DigestTable& table, uint32_t lane, uint32_t first,
                       uint32_t count, Fault* fault) {
  for (uint32_t i = first; i < first + count; ++i) {
    if (i >= reader.nr_chunks()) {
      digest_blanks(table, reader.blanks()[i - reader.nr_chunks()]);
      continue;
    }
    image::DecodedChunk chunk;
    if (!reader.read_chunk(lane, i, &chunk, fault)) return false;
    for (uint32_t slot = 0; slot < chunk.n_pages; ++slot) {
      const uint64_t desc = chunk.descs[slot];
      const uint64_t pfn = image::desc_pfn(desc);
      if (pfn < table.nr_pfns() && reader.is_current(i, slot, pfn))
        table.set(pfn, image::desc_type(desc), chunk.bodies + uint64_t(slot) * host::kPageSize);
    }
  }
  return true;
}

}  // namespace dormouse::step
