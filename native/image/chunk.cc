#include "image/chunk.h"

#include <algorithm>
#include <cstring>

#include "codec/lz4.h"
#include "host/host.h"

namespace dormouse::image {

namespace {

template <typename T>
T load(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

bool damaged(Fault* fault, uint32_t chunk, const char* what) {
  fault->chunk = chunk;
  return fault->raise("IMAGE_DAMAGED", "chunk " + std::to_string(chunk) + ": " + what);
}

bool all_zero(const uint8_t* from, const uint8_t* to) {
  return std::all_of(from, to, [](uint8_t b) { return b == 0; });
}

bool incompatible(Fault* fault, uint32_t chunk, const char* what, unsigned number) {
  fault->chunk = chunk;
  return fault->raise("IMAGE_INCOMPATIBLE", "chunk " + std::to_string(chunk) + " is of " + what +
                                                " " + std::to_string(number) +
                                                ", which this version does not know");
}

// A delta is a block of its own.
uint32_t pages_a_block(const ChunkHeader& h) { return h.kind == kChunkDeltas ? 1 : kBlockPages; }

// Bodies in block `block`.
uint32_t block_pages(const ChunkHeader& h, uint32_t block) {
  return std::min(pages_a_block(h), h.bodies - block * pages_a_block(h));
}

uint64_t bases_bytes(const ChunkHeader& h) {
  return h.kind == kChunkDeltas ? h.bodies * sizeof(DeltaBase) : 0;
}

bool check_counts(const ChunkHeader& h) {
  return h.pages >= 1 && h.pages <= kMaxChunkPages && h.bodies <= kMaxChunkBodies &&
         h.bodies <= h.pages && h.runs >= 1 && h.runs <= h.pages &&
         h.blocks == (h.bodies + pages_a_block(h) - 1) / pages_a_block(h) &&
         h.payload_size <= uint32_t(h.bodies) * kPageBytes;
}

// What this version knows, and what may be here.
bool check_kind(const ChunkHeader& h, const ChunkExpect& expect, Fault* fault) {
  if (h.kind != kChunkPages && h.kind != kChunkDeltas)
    return incompatible(fault, expect.chunk, "kind", h.kind);
  if (h.codec > kCodecLz4) return incompatible(fault, expect.chunk, "codec", h.codec);
  return h.kind == kChunkPages || expect.deltas ||
         damaged(fault, expect.chunk, "it holds deltas where there can be none");
}

bool check_header(const ChunkHeader& h, uint64_t n, const ChunkExpect& expect, Fault* fault) {
  if (h.magic != kChunkMagic || h.header_size != sizeof(ChunkHeader))
    return damaged(fault, expect.chunk, "not a chunk header");
  if (!check_kind(h, expect, fault)) return false;
  if (!expect.newer && !(all_zero(h.cipher_area, h.cipher_area + sizeof h.cipher_area) &&
                         all_zero(h.reserved, h.reserved + sizeof h.reserved)))
    return damaged(fault, expect.chunk, "reserved bytes are not zero");
  if (h.span != n || n > kMaxChunkSpan) return damaged(fault, expect.chunk, "wrong size");
  if (!check_counts(h)) return damaged(fault, expect.chunk, "counts contradict each other");
  const uint64_t used =
      sizeof h + h.payload_size + h.blocks * 4ull + h.runs * sizeof(ChunkRun) + bases_bytes(h);
  if (whole_pages(used) != n) return damaged(fault, expect.chunk, "lengths do not add up");
  return true;
}

bool check_blocks(const ChunkView& view, Fault* fault) {
  const ChunkHeader& h = view.header;
  uint64_t sum = 0;
  uint32_t compressed = 0;
  for (uint32_t b = 0; b < h.blocks; b++) {
    const uint32_t length = load<uint32_t>(view.block_table + b * 4);
    const uint32_t raw = block_pages(h, b) * kPageBytes;
    const uint32_t stored = length & ~kStoredFlag;
    const bool is_stored = length & kStoredFlag;
    if (is_stored ? stored != raw || h.kind == kChunkDeltas : stored == 0 || stored >= raw)
      return damaged(fault, view.chunk, "a block has an impossible length");
    compressed += !is_stored;
    sum += stored;
  }
  if (sum != h.payload_size) return damaged(fault, view.chunk, "block lengths do not add up");
  return (h.codec != kCodecNone) == (compressed != 0) ||
         damaged(fault, view.chunk, "its codec is not that of its blocks");
}

bool check_run(const ChunkRun& run, const ChunkExpect& expect, Fault* fault) {
  const uint64_t first = desc_pfn(run.desc);
  const uint8_t page_class = desc_class(run.desc);
  fault->pfn = first;
  if (run.count == 0 || run.count > kMaxChunkPages || first >= expect.nr_pfns ||
      run.count > expect.nr_pfns - first || (run.desc >> 52 & 0xF) != 0)
    return damaged(fault, expect.chunk, "a run of pages is out of range");
  if (!class_fits_type(page_class, desc_type(run.desc)))
    return damaged(fault, expect.chunk, "a page has an impossible class");
  fault->pfn = Fault::kNowhere;
  return true;
}

bool check_bases(const ChunkView& view, Fault* fault) {
  for (uint64_t at = 0; at < bases_bytes(view.header); at += sizeof(DeltaBase)) {
    const auto base = load<DeltaBase>(view.bases + at);
    if (base.age < 1 || base.age > kMaxDeltaAge || base.slot >= kMaxChunkBodies)
      return damaged(fault, view.chunk, "a delta rests on an impossible page");
  }
  return true;
}

bool check_runs(const ChunkView& view, const ChunkExpect& expect, Fault* fault) {
  uint64_t pages = 0, bodies = 0;
  for (uint32_t r = 0; r < view.header.runs; r++) {
    const auto run = load<ChunkRun>(view.runs + r * sizeof(ChunkRun));
    if (!check_run(run, expect, fault)) return false;
    if (view.header.kind == kChunkDeltas && desc_class(run.desc) != kClassData)
      return damaged(fault, expect.chunk, "a delta of a page that has none");
    pages += run.count;
    if (class_has_body(desc_class(run.desc))) bodies += run.count;
  }
  return (pages == view.header.pages && bodies == view.header.bodies) ||
         damaged(fault, expect.chunk, "runs of pages do not add up");
}

}  // namespace

bool class_fits_type(uint8_t page_class, uint8_t type) {
  const bool ordinary = host::has_body(type) && host::table_level(type) == 0;
  switch (page_class) {
    case kClassData:
    case kClassZero:
      return ordinary;
    case kClassTable:
      return host::table_level(type) != 0;
    case kClassNoFrame:
      return type == host::kXtab;
    case kClassBroken:
      return type == host::kBroken;
    case kClassAlloc:
      return type == host::kXalloc;
    default:
      return false;
  }
}

bool parse_chunk(const uint8_t* bytes, uint64_t n, const ChunkExpect& expect, ChunkView* view,
                 Fault* fault) {
  if (n < sizeof(ChunkHeader)) return damaged(fault, expect.chunk, "shorter than its header");
  view->chunk = expect.chunk;
  view->header = load<ChunkHeader>(bytes);
  const ChunkHeader& h = view->header;
  if (!check_header(h, n, expect, fault)) return false;
  view->payload = bytes + sizeof(ChunkHeader);
  view->block_table = view->payload + h.payload_size;
  view->runs = view->block_table + h.blocks * 4;
  view->bases = view->runs + h.runs * sizeof(ChunkRun);
  if (!check_blocks(*view, fault) || !check_runs(*view, expect, fault)) return false;
  if (!check_bases(*view, fault)) return false;
  return all_zero(view->bases + bases_bytes(h), bytes + n) ||
         damaged(fault, expect.chunk, "its padding is not zero");
}

void expand_runs(const ChunkView& view, uint64_t* descs) {
  for (uint32_t r = 0; r < view.header.runs; r++) {
    const auto run = load<ChunkRun>(view.runs + r * sizeof(ChunkRun));
    for (uint32_t i = 0; i < run.count; i++) *descs++ = run.desc + i;
  }
}

void list_deltas(const ChunkView& view, std::vector<StoredDelta>* out) {
  out->clear();
  const uint8_t* bytes = view.payload;
  for (uint32_t slot = 0; slot < view.header.bodies; slot++) {
    const uint32_t size = load<uint32_t>(view.block_table + slot * 4);
    out->push_back({slot, bytes, size, load<DeltaBase>(view.bases + slot * sizeof(DeltaBase))});
    bytes += size;
  }
}

static bool decode_at(const ChunkView& view, uint32_t block, const uint8_t* src, uint8_t* out,
                      Fault* fault) {
  const uint32_t length = load<uint32_t>(view.block_table + block * 4);
  const uint32_t raw = block_pages(view.header, block) * kPageBytes;
  if (length & kStoredFlag) {
    std::memcpy(out, src, raw);
    return true;
  }
  return codec::lz4_decompress(src, length, out, raw) ||
         damaged(fault, view.chunk, "a block does not decode");
}

bool decode_block(const ChunkView& view, uint32_t block, uint8_t* out, uint32_t* n_pages,
                  Fault* fault) {
  if (block >= view.header.blocks) return damaged(fault, view.chunk, "no such block");
  const uint8_t* src = view.payload;
  for (uint32_t b = 0; b < block; b++)
    src += load<uint32_t>(view.block_table + b * 4) & ~kStoredFlag;
  *n_pages = block_pages(view.header, block);
  return decode_at(view, block, src, out, fault);
}

bool decode_chunk(const uint8_t* bytes, uint64_t n, const ChunkExpect& expect, uint64_t* descs,
                  uint32_t* n_pages, uint8_t* bodies, uint32_t* n_bodies, Fault* fault) {
  ChunkView view;
  if (!parse_chunk(bytes, n, expect, &view, fault)) return false;
  expand_runs(view, descs);
  const uint8_t* src = view.payload;
  for (uint32_t b = 0; b < view.header.blocks; b++) {
    if (!decode_at(view, b, src, bodies + uint64_t(b) * kBlockBytes, fault)) return false;
    src += load<uint32_t>(view.block_table + b * 4) & ~kStoredFlag;
  }
  *n_pages = view.header.pages;
  *n_bodies = view.header.bodies;
  return true;
}

}  // namespace dormouse::image
