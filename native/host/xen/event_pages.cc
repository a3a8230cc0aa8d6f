#include "host/xen/event_pages.h"

#include <algorithm>

#include "host/xen/event_words.h"

namespace dormouse::xen {
namespace {

constexpr uint32_t kFewFree = 16;
// A control block: bits of the priorities that have events, a reserved word, their queues' heads.
constexpr size_t kHeads = 2, kPriorities = 16, kControlWords = kHeads + kPriorities;
constexpr uint32_t kQueryPages = 1024;

}  // namespace

bool looks_like_event_words(const uint32_t* words) {
  if (words[kEventWords - 1] != kEventMasked) return false;
  uint32_t unused = 0;
  for (size_t i = 0; i < kEventWords; ++i) {
    if (words[i] & kEventReserved) return false;
    unused += words[i] == kEventMasked;
  }
  return unused >= kFewFree;
}

bool looks_like_control_block(const uint32_t* words) {
  if (words[0] >> kPriorities != 0 || words[1] != 0) return false;
  uint32_t any = 0, highest = 0;
  for (size_t i = kHeads; i < kControlWords; ++i) {
    any |= words[i];
    highest = std::max(highest, words[i]);
  }
  if (any == 0 || highest > kEventLink) return false;
  return std::all_of(words + kControlWords, words + kEventWords,
                     [](uint32_t word) { return word == 0; });
}

bool find_event_pages(host::DomainMemory& memory, std::vector<uint64_t>* pfns, Fault* fault) {
  uint64_t entries[kQueryPages];
  for (uint64_t first = memory.next_present(0); first < memory.nr_pfns();
       first = memory.next_present(first + kQueryPages)) {
    const uint32_t n = uint32_t(std::min<uint64_t>(kQueryPages, memory.nr_pfns() - first));
    if (!memory.query(first, n, entries, fault)) return false;
    for (uint32_t i = 0; i < n; ++i) {
      if (host::type_of(entries[i]) != host::kNotab) continue;
      const auto* words = reinterpret_cast<const uint32_t*>(memory.peek(first + i, entries[i]));
      if (!words || !(looks_like_event_words(words) || looks_like_control_block(words))) continue;
      if (pfns->size() < kEventPagesCap) pfns->push_back(first + i);
    }
  }
  return true;
}

}  // namespace dormouse::xen
