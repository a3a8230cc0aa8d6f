// Xen's public layout of a block ring (xen/include/public/io/{ring,blkif}.h; x86-64's ABI).
#pragma once
#include <cstddef>
#include <cstdint>

#include "host/embedded/device_layout.h"

namespace dormouse::embedded {

constexpr uint32_t kRingEntries = 32;  // what fits into one page
constexpr uint32_t kSectorBytes = 512, kPageSectors = 8;
constexpr uint32_t kRingSegments = 11;

enum BlkOperation : uint8_t { kBlkRead = 0, kBlkWrite = 1, kBlkFlush = 3 };
enum BlkStatus : int16_t { kBlkOkay = 0, kBlkError = -1, kBlkUnknown = -2 };

struct BlkSegment {
  uint32_t gref;
  uint8_t first_sect, last_sect;
};

struct BlkRequest {
  uint8_t operation, nr_segments;
  uint16_t handle;
  uint64_t id;
  uint64_t sector_number;
  BlkSegment seg[kRingSegments];
};

struct BlkResponse {
  uint64_t id;
  uint8_t operation;
  int16_t status;
};

union BlkEntry {
  BlkRequest req;
  BlkResponse rsp;
};

struct BlkRing {
  uint32_t req_prod, req_event, rsp_prod, rsp_event;
  uint8_t pad[48];
  BlkEntry ring[kRingEntries];
};
static_assert(sizeof(BlkSegment) == 8);
static_assert(offsetof(BlkRequest, id) == 8 && offsetof(BlkRequest, seg) == 24);
static_assert(sizeof(BlkRequest) == 112 && sizeof(BlkResponse) == 16);
static_assert(offsetof(BlkRing, ring) == 64 && sizeof(BlkRing) <= 4096);

}  // namespace dormouse::embedded
