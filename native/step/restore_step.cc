#include "step/restore_step.h"

#include <cinttypes>
#include <cstdio>

#include "step/placer.h"

namespace dormouse::step {
namespace {

constexpr uint64_t kEntries = host::kPageSize / sizeof(uint64_t);

bool place_chunk(host::DomainMemory& memory, image::Reader& reader, uint32_t chunk_index,
                 const image::DecodedChunk& chunk, Placer* placer, uint64_t* placed, Fault* fault) {
  const host::FrameMaps maps = memory.maps();
  alignas(64) uint8_t table[host::kPageSize];
  const uint8_t* body = chunk.bodies;
  for (uint32_t slot = 0; slot < chunk.n_pages; ++slot) {
    const uint64_t desc = chunk.descs[slot];
    const uint8_t page_class = image::desc_class(desc);
    const uint64_t pfn = image::desc_pfn(desc);
    const uint8_t* own = body;
    if (image::class_has_body(page_class)) body += host::kPageSize;
    if (!reader.is_current(chunk_index, slot, pfn)) continue;
    if (page_class == image::kClassTable) {
      const int level = host::table_level(image::desc_type(desc));
      if (!localise_body(maps, pfn, level, own, table, fault)) return false;
      if (!memory.copy_in(&pfn, 1, table, fault)) return false;
      ++*placed;
    } else if (page_class == image::kClassData) {
      if (!placer->add(pfn, own, fault)) return false;
    }
  }
  return placer->flush(fault);
}

bool place_blanks(host::DomainMemory& memory, const image::BlankPages& blanks, Fault* fault) {
  if (blanks.page_class != image::kClassZero || memory.populate_gives_zeroes()) return true;
  for (uint64_t pfn = blanks.first; pfn < blanks.first + blanks.count; ++pfn)
    if (!memory.copy_in(&pfn, 1, kZeroPage, fault)) return false;
  return true;
}

}  // namespace

bool localise_body(const host::FrameMaps& maps, uint64_t pfn, int level, const uint8_t* body,
                   uint8_t* out, Fault* fault, pfn::Localise localise) {
  const pfn::TableResult result = localise(maps, level, reinterpret_cast<const uint64_t*>(body),
                                           reinterpret_cast<uint64_t*>(out));
  if (result.fault == pfn::TableFault::none) return true;
  char text[160];
  std::snprintf(text, sizeof text,
                "page table at pfn %" PRIu64
                " (level %d) of the image is not valid: entry %u is "
                "0x%016" PRIx64 ": %s",
                pfn, level, result.index, result.entry, pfn::table_fault_text(result.fault));
  fault->pfn = pfn;
  return fault->raise("IMAGE_DAMAGED", text);
}

bool localise_tables(host::DomainMemory& memory, const uint64_t* pfns, const uint8_t* levels,
                     uint64_t n, Fault* fault) {
  const host::FrameMaps maps = memory.maps();
  alignas(64) uint8_t canonical[host::kPageSize], table[host::kPageSize];
  for (uint64_t i = 0; i < n; ++i) {
    uint64_t entry = 0;
    if (!memory.query(pfns[i], 1, &entry, fault) ||
        !memory.copy_out(&pfns[i], &entry, 1, canonical, fault) ||
        !localise_body(maps, pfns[i], levels[i], canonical, table, fault) ||
        !memory.copy_in(&pfns[i], 1, table, fault))
      return false;
  }
  return true;
}

bool restore_step(host::DomainMemory& memory, image::Reader& reader, uint32_t lane, uint32_t first,
                  uint32_t count, uint64_t* placed, Fault* fault) {
  Placer placer(memory);
  for (uint32_t i = first; i < first + count; ++i) {
    if (i >= reader.nr_chunks()) {
      if (!place_blanks(memory, reader.blanks()[i - reader.nr_chunks()], fault)) return false;
      continue;
    }
    image::DecodedChunk chunk;
    if (!reader.read_chunk(lane, i, &chunk, fault)) return false;
    if (!place_chunk(memory, reader, i, chunk, &placer, placed, fault)) return false;
  }
  *placed += placer.placed();
  return true;
}

void make_p2m_leaf(const host::FrameMaps& maps, uint64_t k, uint64_t* out) {
  for (uint64_t i = 0; i < kEntries; ++i) {
    const uint64_t pfn = k * kEntries + i;
    const uint64_t mfn = pfn < maps.nr_pfns ? maps.p2m[pfn] & host::kMfnMask : host::kNoMfn;
    out[i] = mfn == host::kNoMfn ? ~0ull : mfn;
  }
}

bool write_p2m_leaves(host::DomainMemory& memory, const uint64_t* leaf_pfns, uint64_t n_leaves,
                      Fault* fault) {
  const host::FrameMaps maps = memory.maps();
  alignas(64) uint64_t leaf[kEntries];
  for (uint64_t k = 0; k < n_leaves; ++k) {
    make_p2m_leaf(maps, k, leaf);
    if (!memory.copy_in(&leaf_pfns[k], 1, reinterpret_cast<const uint8_t*>(leaf), fault))
      return false;
  }
  return true;
}

}  // namespace dormouse::step
