#include "host/xen/timer_events.h"

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "host/xen/event_pages.h"
#include "host/xen/event_words.h"

namespace dormouse::xen {
namespace {

constexpr uint32_t kQueryPages = 1024;
// More are not believed.
constexpr size_t kVcpuInfosCap = 8192;
constexpr int8_t kShiftMost = 16;
constexpr uint8_t kFlagsKnown = 3;
// What Xen writes where a vCPU has its place moved; a guest with FIFO events leaves it so.
constexpr uint64_t kAllMayBePending = ~uint64_t(0);
// A control block, in words: bits of the priorities that have events, a reserved word, the heads of
// their queues. Timers have the first to themselves.
constexpr size_t kReady = 0, kTimerHead = 2;

struct Page {
  alignas(64) uint8_t bytes[host::kPageSize];
  uint32_t* words() { return reinterpret_cast<uint32_t*>(bytes); }
};

bool all_zero(const uint8_t* bytes, size_t n) {
  return std::all_of(bytes, bytes + n, [](uint8_t byte) { return byte == 0; });
}

bool is_clock(uint64_t value) { return value != 0 && value >> 62 == 0; }

VcpuInfo info_at(const uint8_t* bytes) {
  VcpuInfo out;
  std::memcpy(&out, bytes, sizeof out);
  return out;
}

}  // namespace

// Xen's factor is normalised: its highest bit is set. No machine is up for so long that a clock of
// nanoseconds, or of cycles, has one of its highest bits set, as addresses of a kernel have.
bool looks_like_vcpu_info(const VcpuInfo& info) {
  return info.upcall_pending <= 1 && info.upcall_mask <= 1 && all_zero(info.pad, sizeof info.pad) &&
         (info.pending_selector == 0 || info.pending_selector == kAllMayBePending) &&
         info.arch_pad == 0 && info.version != 0 && info.time_pad == 0 &&
         is_clock(info.tsc_timestamp) && is_clock(info.system_time) &&
         info.tsc_to_system_mul >> 31 == 1 && info.tsc_shift <= kShiftMost &&
         info.tsc_shift >= -kShiftMost && info.flags <= kFlagsKnown &&
         all_zero(info.end_pad, sizeof info.end_pad);
}

// Xen measures the factor of each processor by itself.
bool have_one_clock(const VcpuInfo& a, const VcpuInfo& b) {
  const int64_t apart = int64_t(a.tsc_to_system_mul) - int64_t(b.tsc_to_system_mul);
  return a.tsc_shift == b.tsc_shift && std::abs(apart) <= int64_t(a.tsc_to_system_mul >> 10);
}

bool TimerEvents::find(host::DomainMemory& memory, uint64_t besides, Fault* fault) {
  event_pages_.clear();
  vcpu_infos_.clear();
  std::vector<VcpuInfo> seen;
  if (!find_event_pages(memory, &event_pages_, fault)) return false;
  uint64_t entries[kQueryPages];
  for (uint64_t first = memory.next_present(0); first < memory.nr_pfns();
       first = memory.next_present(first + kQueryPages)) {
    const uint32_t n = uint32_t(std::min<uint64_t>(kQueryPages, memory.nr_pfns() - first));
    if (!memory.query(first, n, entries, fault)) return false;
    for (uint32_t i = 0; i < n; ++i) {
      if (host::type_of(entries[i]) != host::kNotab || first + i == besides) continue;
      const uint8_t* page = memory.peek(first + i, entries[i]);
      for (uint32_t at = 0; page && at < host::kPageSize; at += sizeof(VcpuInfo)) {
        const VcpuInfo info = info_at(page + at);
        if (!looks_like_vcpu_info(info) || seen.size() >= kVcpuInfosCap) continue;
        seen.push_back(info);
        vcpu_infos_.push_back({first + i, at});
      }
    }
  }
  keep_one_clock(seen);
  return true;
}

// Those that agree with the most others, if they are more than all others that agree.
void TimerEvents::keep_one_clock(const std::vector<VcpuInfo>& seen) {
  size_t most = 0, second = 0, of = 0;
  for (size_t i = 0; i < seen.size(); ++i) {
    const auto agrees = [&](const VcpuInfo& other) { return have_one_clock(seen[i], other); };
    // Counted once, at its first one.
    if (std::any_of(seen.begin(), seen.begin() + ptrdiff_t(i), agrees)) continue;
    const size_t n = size_t(std::count_if(seen.begin(), seen.end(), agrees));
    if (n > most) of = i;
    second = std::max(second, std::min(most, n));
    most = std::max(most, n);
  }
  if (most == second) return;
  std::vector<Place> kept;
  for (size_t i = 0; i < seen.size(); ++i)
    if (have_one_clock(seen[of], seen[i])) kept.push_back(vcpu_infos_[i]);
  vcpu_infos_ = std::move(kept);
}

bool TimerEvents::find_block(const GuestPages& pages, uint32_t port, uint64_t* pfn, bool* found,
                             Fault* fault) const {
  size_t fitting = 0;
  for (const uint64_t candidate : event_pages_) {
    Page page;
    if (!pages.read(candidate, page.bytes, fault)) return false;
    if (!looks_like_control_block(page.words()) || page.words()[kTimerHead] != port) continue;
    *pfn = candidate;
    ++fitting;
  }
  *found = fitting == 1;
  return true;
}

// They were found in what the domain was before. All that are of one domain tell the time of one
// machine: what else has such looks has another clock.
bool TimerEvents::are_there(const GuestPages& pages, bool* there, Fault* fault) const {
  *there = true;
  VcpuInfo first = {};
  for (size_t i = 0; i < vcpu_infos_.size(); ++i) {
    Page page;
    if (!pages.read(vcpu_infos_[i].pfn, page.bytes, fault)) return false;
    const VcpuInfo info = info_at(page.bytes + vcpu_infos_[i].offset);
    if (i == 0) first = info;
    *there = *there && looks_like_vcpu_info(info) && have_one_clock(first, info);
  }
  return true;
}

// A timer is alone in its queue: whoever else Xen puts there comes after it was taken out.
bool TimerEvents::raise(const GuestPages& pages, uint64_t event_array,
                        const std::vector<uint32_t>& ports, uint32_t on, uint32_t most,
                        std::string* why, Fault* fault) const {
  std::vector<uint64_t> blocks(ports.size());
  const std::string of = " of " + std::to_string(on) + " vCPUs";
  if (ports.size() != on) *why = std::to_string(ports.size()) + " timers" + of;
  // One that is off keeps its place.
  if (vcpu_infos_.size() != on && vcpu_infos_.size() != most)
    *why = std::to_string(vcpu_infos_.size()) + " places look like those" + of;
  bool found = true;
  for (size_t i = 0; why->empty() && i < ports.size(); ++i) {
    if (!find_block(pages, ports[i], &blocks[i], &found, fault)) return false;
    if (!found) *why = "not one page looks like that of port " + std::to_string(ports[i]);
  }
  if (why->empty() && !are_there(pages, &found, fault)) return false;
  if (why->empty() && !found) *why = "its vCPUs' places were others then";
  const auto change = [&](uint64_t pfn, const auto& how) {
    Page page;
    if (!pages.read(pfn, page.bytes, fault)) return false;
    how(page);
    return pages.write(pfn, page.bytes, fault);
  };
  const auto pending = [&](Page& page) {
    for (const uint32_t port : ports) {
      uint32_t& word = page.words()[port];
      word = (word & ~kEventLink) | kEventPending | kEventLinked;
    }
  };
  if (!why->empty()) return true;
  if (!change(event_array, pending)) return false;
  for (size_t i = 0; i < ports.size(); ++i) {
    const auto ready = [&](Page& page) {
      page.words()[kReady] |= 1;
      page.words()[kTimerHead] = ports[i];
    };
    if (!change(blocks[i], ready)) return false;
  }
  for (const Place& place : vcpu_infos_) {
    const auto told = [&](Page& page) {
      page.bytes[place.offset + offsetof(VcpuInfo, upcall_pending)] = 1;
    };
    if (!change(place.pfn, told)) return false;
  }
  return true;
}

}  // namespace dormouse::xen
