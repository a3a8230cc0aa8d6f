// What all of Xen's split devices share: a grant table's entries, the states of both ends, and when
// a ring's other side is to be told (xen/include/public/{grant_table,io/xenbus,io/ring}.h).
#pragma once
#include <cstdint>

namespace dormouse::embedded {

// Where the field was notified of between `old` and `now` (RING_PUSH_..._AND_CHECK_NOTIFY).
constexpr bool ring_wants_notice(uint32_t old, uint32_t now, uint32_t event) {
  return now - event < now - old;
}

// Version 1. Our guests name frames by PFN, as guests of a translated domain do.
struct GrantEntry {
  uint16_t flags, domid;
  uint32_t frame;
};
static_assert(sizeof(GrantEntry) == 8);
constexpr uint16_t kGrantPermitAccess = 1, kGrantReadOnly = 4;

// States of either end of a device.
enum XenbusState : uint32_t {
  kXenbusInitialising = 1,
  kXenbusInitWait = 2,
  kXenbusInitialised = 3,
  kXenbusConnected = 4,
  kXenbusClosing = 5,
  kXenbusClosed = 6,
};

}  // namespace dormouse::embedded
