// The chunk decoder on any bytes, and on chunks, of pages and of deltas, whose counts and lengths
// add up so that the fuzzer gets beyond the first checks.
#include "image/chunk.h"

#include "codec/lz4.h"
#include "fuzz/input.h"
#include "image/encode.h"

namespace {

using namespace dormouse;
using namespace dormouse::image;
using fuzz::Fenced;
using fuzz::Input;
using fuzz::require;

constexpr uint32_t kChunk = 7;

// Writes the fields that a chunk always has alike.
void address(uint8_t* chunk, uint32_t span) {
  ChunkHeader h;
  std::memcpy(&h, chunk, sizeof h);
  h.magic = kChunkMagic;
  h.header_size = sizeof h;
  if (h.kind % 8 != 7) h.kind = h.kind % 8 < 5 ? kChunkPages : kChunkDeltas;
  h.span = span;
  std::memcpy(chunk, &h, sizeof h);
}

class Shaper {
 public:
  explicit Shaper(Input* in) : in_(in) {}

  // A chunk that holds together, then up to three bytes of damage. Returns its length.
  uint32_t shape(uint8_t* chunk, bool deltas) {
    at_ = sizeof(ChunkHeader);
    ChunkHeader h = {};
    if (deltas) {
      shape_deltas(&h, chunk);
      return finish(&h, chunk);
    }
    h.bodies = in_->number<uint8_t>() % 50;
    h.blocks = uint16_t((h.bodies + kBlockPages - 1) / kBlockPages);
    write_blocks(&h, chunk);
    write_runs(&h, chunk);
    return finish(&h, chunk);
  }

 private:
  uint32_t finish(ChunkHeader* h, uint8_t* chunk) {
    const auto span = uint32_t(whole_pages(at_));
    const uint8_t kind = h->kind;
    h->kind = kind == kChunkDeltas ? 5 : 0;  // as address() reads it
    std::memcpy(chunk, h, sizeof *h);
    std::memset(chunk + at_, 0, span - at_);
    address(chunk, span);
    for (int damage = in_->number<uint8_t>() % 4; damage > 0; damage--)
      chunk[in_->number<uint32_t>() % span] ^= in_->number<uint8_t>();
    return span;
  }

  void shape_deltas(ChunkHeader* h, uint8_t* chunk) {
    h->kind = kChunkDeltas;
    h->codec = kCodecLz4;
    h->pages = h->bodies = h->blocks = uint16_t(1 + in_->number<uint8_t>());
    uint32_t lengths[kMaxChunkBodies];
    for (uint32_t slot = 0; slot < h->bodies; slot++) {
      lengths[slot] = 1 + in_->number<uint8_t>() % 40;
      in_->take(chunk + at_, lengths[slot]);
      at_ += lengths[slot];
    }
    h->payload_size = at_ - uint32_t(sizeof *h);
    std::memcpy(chunk + at_, lengths, h->bodies * 4u);
    at_ += h->bodies * 4u;
    h->runs = 1;
    const ChunkRun run = {page_desc(in_->number<uint16_t>() % 30000, kClassData, 0), h->pages};
    std::memcpy(chunk + at_, &run, sizeof run);
    at_ += uint32_t(sizeof run);
    for (uint32_t slot = 0; slot < h->bodies; slot++) {
      const DeltaBase base = {in_->number<uint16_t>(), in_->number<uint8_t>(),
                              uint16_t(1 + in_->number<uint8_t>() % 32)};
      std::memcpy(chunk + at_, &base, sizeof base);
      at_ += uint32_t(sizeof base);
    }
  }

  void write_blocks(ChunkHeader* h, uint8_t* chunk) {
    uint32_t lengths[kMaxChunkBlocks];
    for (uint32_t b = 0; b < h->blocks; b++) {
      const uint32_t left = h->bodies - b * kBlockPages;
      const uint32_t raw = (left < kBlockPages ? left : kBlockPages) * kPageBytes;
      lengths[b] = write_block(chunk, raw);
      if (!(lengths[b] & kStoredFlag)) h->codec = kCodecLz4;
    }
    h->payload_size = at_ - uint32_t(sizeof *h);
    std::memcpy(chunk + at_, lengths, h->blocks * 4u);
    at_ += h->blocks * 4u;
  }

  // Stored, well compressed, or whatever the input holds. Returns the length entry.
  uint32_t write_block(uint8_t* chunk, uint32_t raw) {
    static codec::Lz4State state;
    static uint8_t plain[kBlockBytes];
    const uint8_t kind = in_->number<uint8_t>();
    if (kind < 64) {
      std::memset(chunk + at_, kind, raw);
      at_ += raw;
      return raw | kStoredFlag;
    }
    std::memset(plain, kind, raw);
    in_->take(plain, 16);
    uint32_t length =
        kind < 160 ? codec::lz4_compress(state, plain, raw, chunk + at_, raw - 1, 1) : 0;
    if (!length) {
      length = 1 + in_->number<uint16_t>() % 200;
      in_->take(chunk + at_, length);
    }
    at_ += length;
    return length;
  }

  void write_runs(ChunkHeader* h, uint8_t* chunk) {
    uint32_t bodies = h->bodies;
    const uint32_t others = 1 + in_->number<uint8_t>() % 8;
    for (uint32_t i = 0; (bodies > 0 || i < others) && h->runs < 64; i++) {
      const uint8_t kind = in_->number<uint8_t>();
      const bool body = bodies > 0 && (kind & 1);
      uint32_t count = 1 + kind % 20;
      if (body || i >= others) count = count < bodies ? count : bodies;
      const bool with_body = body || i >= others;
      if (with_body) bodies -= count;
      add_run(h, chunk, with_body ? body_class(kind) : other_class(kind), count);
    }
  }

  // Class in the low nibble, Xen page type in the high one.
  static uint8_t body_class(uint8_t kind) { return kind & 2 ? 0x93 : 0x01; }
  static uint8_t other_class(uint8_t kind) {
    constexpr uint8_t known[] = {0x02, 0xF4, 0xD5, 0xE6};
    return kind < 240 ? known[kind % sizeof known] : kind;
  }

  void add_run(ChunkHeader* h, uint8_t* chunk, uint8_t class_and_type, uint32_t count) {
    const ChunkRun run = {
        page_desc(in_->number<uint16_t>(), class_and_type & 0xF, class_and_type >> 4), count};
    std::memcpy(chunk + at_, &run, sizeof run);
    at_ += uint32_t(sizeof run);
    h->runs++;
    h->pages = uint16_t(h->pages + count);
  }

  Input* in_;
  uint32_t at_ = 0;
};

// What a decoded chunk promises to those who use it.
void check_result(const ChunkExpect& expect, const uint64_t* descs, uint32_t pages,
                  uint32_t bodies) {
  require(pages >= 1 && pages <= kMaxChunkPages && bodies <= kMaxChunkBodies,
          "counts beyond the caps");
  uint32_t with_body = 0;
  for (uint32_t i = 0; i < pages; i++) {
    require(desc_pfn(descs[i]) < expect.nr_pfns, "a pfn the domain does not have");
    require(class_fits_type(desc_class(descs[i]), desc_type(descs[i])),
            "a class its type excludes");
    with_body += class_has_body(desc_class(descs[i]));
  }
  require(with_body == bodies, "bodies and classes differ");
}

// What was decoded becomes a chunk that decodes to the same.
void round_trip(const ChunkExpect& expect, const uint64_t* descs, uint32_t pages,
                const uint8_t* stored, uint32_t n_stored) {
  static BlockCoder coder(Compression::lz4);
  static uint8_t made[kMaxChunkSpan], bodies[kMaxChunkBodies * kPageBytes];
  static uint64_t again[kMaxChunkPages];
  const uint32_t used = encode_chunk(coder, {descs, pages, stored, n_stored}, made);
  const auto span = uint32_t(whole_pages(used));
  std::memset(made + used, 0, span - used);
  uint32_t n_pages = 0, n_bodies = 0;
  Fault fault;
  require(decode_chunk(made, span, expect, again, &n_pages, bodies, &n_bodies, &fault),
          "what was encoded does not decode");
  require(n_pages == pages && std::memcmp(again, descs, pages * 8ull) == 0, "other pages");
  require(n_bodies == n_stored && std::memcmp(bodies, stored, n_bodies * kPageBytes) == 0,
          "other bodies");
}

// Of a chunk of deltas: each lies where the payload is, one behind the other, and rests on a page
// that can be.
void check_deltas(const ChunkExpect& expect, const uint8_t* chunk, uint32_t span) {
  ChunkView view;
  Fault fault;
  if (!parse_chunk(chunk, span, expect, &view, &fault)) return;
  if (view.header.kind != kChunkDeltas) return;
  static uint64_t descs[kMaxChunkPages];
  expand_runs(view, descs);
  std::vector<StoredDelta> list;
  list_deltas(view, &list);
  require(list.size() == view.header.pages, "a delta a page");
  const uint8_t* at = view.payload;
  for (const StoredDelta& delta : list) {
    require(delta.bytes == at && delta.size > 0 && delta.size < kPageBytes, "it lies elsewhere");
    at += delta.size;
    require(delta.base.age >= 1 && delta.base.age <= kMaxDeltaAge, "an impossible age");
    require(desc_class(descs[delta.slot]) == kClassData, "a delta of a page without a body");
  }
  require(at == view.block_table, "bytes that belong to no delta");
}

void decode(const uint8_t* chunk, uint32_t span, bool newer) {
  static const Fenced bodies(kMaxChunkBodies * kPageBytes), descs(kMaxChunkPages * 8);
  const ChunkExpect expect = {kChunk, 40000, newer};
  uint32_t n_pages = 0, n_bodies = 0;
  Fault fault;
  uint64_t* const out = descs.last_words(kMaxChunkPages);
  uint8_t* const plain = bodies.last(kMaxChunkBodies * kPageBytes);
  const bool good = decode_chunk(chunk, span, expect, out, &n_pages, plain, &n_bodies, &fault);
  require(good != bool(fault), "a fault is raised exactly where there is one");
  if (!good) return;
  check_result(expect, out, n_pages, n_bodies);
  round_trip(expect, out, n_pages, plain, n_bodies);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  static const Fenced memory(kMaxChunkSpan + kPageBytes);
  static uint8_t shaped[kMaxChunkSpan];
  Input in(data, bytes);
  const uint8_t mode = in.number<uint8_t>();
  uint32_t span;
  if (mode & 1) {
    span = Shaper(&in).shape(shaped, mode & 16);
  } else {
    span = uint32_t(in.left() < kMaxChunkSpan ? in.left() : kMaxChunkSpan);
    if (mode & 2) span = uint32_t(whole_pages(span));
    in.take(shaped, span);
    if (mode & 4 && span >= sizeof(ChunkHeader)) address(shaped, span);
  }
  // The decoder's copy ends at the fence.
  uint8_t* const chunk = memory.last(span);
  if (span) std::memcpy(chunk, shaped, span);
  decode(chunk, span, mode & 8);
  check_deltas({kChunk, 40000, bool(mode & 8), true}, chunk, span);
  return 0;
}
