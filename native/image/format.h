// The structures of image format 1 that native code reads and writes, byte for byte as
// docs/image-format.md has them. Little-endian. src/image/format.ts holds the same layout, and the
// verifier built on that, without any of this code, parses whatever this writes.
#pragma once
#include <cstddef>
#include <cstdint>

namespace dormouse::image {

constexpr uint32_t kPageBytes = 4096;
constexpr uint32_t kBlockPages = 16;       // pages compressed together: 64 KiB
constexpr uint32_t kMaxChunkBodies = 256;  // pages with a body in one chunk: 1 MiB
constexpr uint32_t kMaxChunkPages = 1024;  // pages of any class in one chunk
constexpr uint32_t kMaxChunkBlocks = kMaxChunkBodies / kBlockPages;
constexpr uint32_t kBlockBytes = kBlockPages * kPageBytes;
constexpr uint32_t kStoredFlag = 1u << 31;  // in a stored length: the block is not compressed
constexpr uint64_t kMaxPfns = 1ull << 32;

constexpr uint64_t whole_pages(uint64_t bytes) {
  return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
}

enum ChunkKind : uint8_t { kChunkPages = 1, kChunkDeltas = 2 };

// How the compressed blocks of a chunk are coded; none where no block is compressed.
enum ChunkCodec : uint8_t { kCodecNone = 0, kCodecLz4 = 1 };

struct ChunkHeader {
  uint32_t magic;
  uint8_t kind;
  uint8_t codec;
  uint16_t header_size;
  uint32_t span;
  uint16_t pages;
  uint16_t bodies;
  uint16_t runs;
  uint16_t blocks;
  uint32_t payload_size;
  uint8_t cipher_area[32];  // salt and tag of an encrypted chunk
  uint8_t reserved[8];
};
constexpr uint32_t kChunkMagic = 0x4B434D44;  // "DMCK"
static_assert(sizeof(ChunkHeader) == 64 && offsetof(ChunkHeader, span) == 8 &&
              offsetof(ChunkHeader, payload_size) == 20 && offsetof(ChunkHeader, reserved) == 56);

struct __attribute__((packed)) ChunkRun {
  uint64_t desc;
  uint32_t count;
};
static_assert(sizeof(ChunkRun) == 12);

// Of a chunk of deltas, by slot: the copy of the page that the delta rests on.
struct DeltaBase {
  uint32_t chunk;
  uint16_t slot;
  uint16_t age;  // how many images of the chain that file is older: 1 to kMaxDeltaAge
};
static_assert(sizeof(DeltaBase) == 8 && offsetof(DeltaBase, age) == 6);
constexpr uint32_t kMaxDeltaAge = 32;

constexpr uint32_t kMaxChunkSpan =
    whole_pages(sizeof(ChunkHeader) + kMaxChunkBodies * kPageBytes + kMaxChunkBlocks * 4 +
                kMaxChunkPages * sizeof(ChunkRun));
static_assert(kMaxChunkSpan == 1064960);

struct ChunkEntry {
  uint64_t offset;
  uint32_t span;
  uint16_t pages;
  uint16_t reserved;
  uint64_t hash_low;
  uint64_t hash_high;
};
static_assert(sizeof(ChunkEntry) == 32 && offsetof(ChunkEntry, hash_low) == 16);

struct MapRun {
  uint32_t count;
  uint32_t chunk;
  uint16_t slot;
  uint16_t source;
  uint8_t page_class;
  uint8_t type;
  uint16_t reserved;
};
static_assert(sizeof(MapRun) == 16 && offsetof(MapRun, page_class) == 12);
constexpr uint32_t kMaxRunPages = 1u << 31;
constexpr uint32_t kMapBlockRuns = 4096;

struct MapBlockHeader {
  uint32_t stored_size;
  uint32_t raw_size;
};
static_assert(sizeof(MapBlockHeader) == 8);

}  // namespace dormouse::image
