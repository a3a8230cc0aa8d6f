// Xen's public layout of a network interface's two rings (xen/include/public/io/netif.h). Each page
// that holds one has room for 256 entries.
#pragma once
#include <cstddef>
#include <cstdint>

#include "host/embedded/device_layout.h"

namespace dormouse::embedded {

constexpr uint32_t kNetRingEntries = 256;
constexpr uint32_t kFrameHeaderBytes = 14, kMostFrameBytes = 1514;  // Ethernet without its checksum
constexpr uint32_t kMacBytes = 6;

enum NetFlags : uint16_t { kNetMoreData = 4, kNetExtraInfo = 8 };
enum NetStatus : int16_t { kNetOkay = 0, kNetError = -1 };

struct NetTxRequest {
  uint32_t gref;
  uint16_t offset, flags, id, size;
};

struct NetTxResponse {
  uint16_t id;
  int16_t status;
};

struct NetRxRequest {
  uint16_t id, pad;
  uint32_t gref;
};

// `status`: bytes of the frame, or what went wrong.
struct NetRxResponse {
  uint16_t id, offset, flags;
  int16_t status;
};

union NetTxEntry {
  NetTxRequest req;
  NetTxResponse rsp;
};

union NetRxEntry {
  NetRxRequest req;
  NetRxResponse rsp;
};

template <typename Entry>
struct NetRing {
  uint32_t req_prod, req_event, rsp_prod, rsp_event;
  uint8_t pad[48];
  Entry ring[kNetRingEntries];
};
using NetTxRing = NetRing<NetTxEntry>;
using NetRxRing = NetRing<NetRxEntry>;
static_assert(sizeof(NetTxEntry) == 12 && sizeof(NetRxEntry) == 8);
static_assert(offsetof(NetTxRing, ring) == 64 && sizeof(NetTxRing) <= 4096);
static_assert(offsetof(NetRxRing, ring) == 64 && sizeof(NetRxRing) <= 4096);

}  // namespace dormouse::embedded
