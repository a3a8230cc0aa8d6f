// The words that a guest and Xen share of each event channel, of the FIFO kind
// (xen/include/public/event_channel.h).
#pragma once
#include <cstddef>
#include <cstdint>

#include "pfn/page_words.h"

namespace dormouse::xen {

constexpr uint32_t kEventPending = 1u << 31, kEventMasked = 1u << 30, kEventLinked = 1u << 29,
                   kEventBusy = 1u << 28;
constexpr uint32_t kEventLink = (1u << 17) - 1;
constexpr uint32_t kEventReserved = 0x0ffe0000;
constexpr size_t kEventWords = pfn::kPageSize / sizeof(uint32_t);

}  // namespace dormouse::xen
