#include "step/copy_step.h"

#include <algorithm>

#include "step/page_batch.h"

namespace dormouse::step {
namespace {

bool append_blanks(image::Writer& writer, uint32_t lane, const image::BlankPages& blanks,
                   Fault* fault) {
  uint64_t descs[kBatchPages];
  for (uint64_t done = 0; done < blanks.count;) {
    const uint32_t n = uint32_t(std::min<uint64_t>(kBatchPages, blanks.count - done));
    for (uint32_t i = 0; i < n; ++i)
      descs[i] = image::page_desc(blanks.first + done + i, blanks.page_class, blanks.type);
    if (!writer.append(lane, descs, n, nullptr, 0, fault)) return false;
    done += n;
  }
  return true;
}

// Neighbouring slots that count go at once.
bool append_current(image::Reader& reader, image::Writer& writer, uint32_t lane, uint32_t index,
                    const image::DecodedChunk& chunk, Fault* fault) {
  for (uint32_t first = 0; first < chunk.n_pages;) {
    uint32_t end = first;
    while (end < chunk.n_pages && reader.is_current(index, end, image::desc_pfn(chunk.descs[end])))
      ++end;
    const uint8_t* bodies = chunk.bodies + uint64_t(first) * host::kPageSize;
    if (end > first &&
        !writer.append(lane, chunk.descs + first, end - first, bodies, end - first, fault))
      return false;
    first = end + 1;
  }
  return true;
}

bool copy_chunk(image::ImageReader& reader, image::ImageWriter& writer, uint32_t lane,
                uint32_t index, bool as_stored, Fault* fault) {
  image::DecodedChunk pages;
  if (!reader.read_chunk(lane, index, &pages, fault)) return false;
  image::StoredChunk whole;
  if (as_stored && reader.whole_chunk(lane, index, pages, &whole))
    return writer.take(lane, whole, fault);
  return append_current(reader, writer, lane, index, pages, fault);
}

}  // namespace

bool copy_step(image::ImageReader& reader, image::ImageWriter& writer, uint32_t lane,
               uint32_t first, uint32_t count, bool as_stored, Fault* fault) {
  for (uint32_t i = first; i < first + count; ++i) {
    const bool good =
        i < reader.nr_chunks()
            ? copy_chunk(reader, writer, lane, i, as_stored, fault)
            : append_blanks(writer, lane, reader.blanks()[i - reader.nr_chunks()], fault);
    if (!good) return false;
  }
  return writer.end_step(lane, fault);
}

bool copy_holes(const image::ReaderMap& map, image::Writer& writer, uint32_t lane, uint64_t first,
                uint64_t count, Fault* fault) {
  const uint64_t end = first + count;
  for (size_t i = map.find(first); i < map.runs().size() && map.runs()[i].first < end; ++i) {
    const image::PlacedRun& run = map.runs()[i];
    if (run.page_class != image::kClassNoFrame) continue;
    const uint64_t from = std::max<uint64_t>(run.first, first);
    const uint64_t until = std::min(map.end_of(i), end);
    if (!append_blanks(writer, lane, {from, until - from, run.page_class, run.type}, fault))
      return false;
  }
  return writer.end_step(lane, fault);
}

}  // namespace dormouse::step
