// Timers of a domain that goes back in place, over pages as Linux and Xen share them.
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "host/xen/event_pages.h"
#include "host/xen/event_words.h"
#include "host/xen/timer_events.h"

using namespace dormouse;
using namespace dormouse::xen;

namespace {

int failures = 0;

void check(bool holds, const std::string& what) {
  if (holds) return;
  std::printf("not so: %s\n", what.c_str());
  ++failures;
}

constexpr uint64_t kPages = 64, kEvents = 3, kShared = 9;
constexpr uint32_t kMost = 3;
constexpr uint32_t kTimers[] = {5, 11};
constexpr uint64_t kBlocks[] = {20, 21};
struct Place {
  uint64_t pfn;
  uint32_t at;
};
constexpr Place kInfos[] = {{30, 64 * 7}, {31, 64 * 63}};

struct Guest : host::DomainMemory {
  std::vector<uint8_t> bytes = std::vector<uint8_t>(kPages * host::kPageSize);
  int writes = 0;

  uint32_t* words(uint64_t pfn) {
    return reinterpret_cast<uint32_t*>(bytes.data() + pfn * host::kPageSize);
  }
  VcpuInfo* info(Place place) {
    return reinterpret_cast<VcpuInfo*>(bytes.data() + place.pfn * host::kPageSize + place.at);
  }
  void put_info(Place place) {
    VcpuInfo out = {};
    out.cr2 = 0x7fff00001000;
    out.version = 42;
    out.tsc_timestamp = 0x123456789ab;
    out.system_time = 98765432100;
    out.tsc_to_system_mul = 0xc0000000;
    out.tsc_shift = -1;
    out.flags = 1;
    *info(place) = out;
  }
  Guest() {
    for (size_t i = 0; i < kEventWords; ++i) words(kEvents)[i] = kEventMasked;
    for (const uint32_t port : kTimers) words(kEvents)[port] = 0;
    for (int i = 0; i < 2; ++i) {
      words(kBlocks[i])[2] = kTimers[i];
      words(kBlocks[i])[2 + 7] = 13;
      put_info(kInfos[i]);
    }
    put_info({kShared, 0});
  }

  host::FrameMaps maps() const override { return {}; }
  uint64_t nr_pfns() const override { return kPages; }
  bool query(uint64_t first, uint32_t n, uint64_t* entries, Fault*) override {
    for (uint32_t i = 0; i < n; ++i) entries[i] = first + i;  // of no table
    return true;
  }
  bool copy_out(const uint64_t*, const uint64_t*, uint32_t, uint8_t*, Fault*) override {
    return false;
  }
  bool copy_in(const uint64_t*, uint32_t, const uint8_t*, Fault*) override { return false; }
  bool populate_gives_zeroes() const override { return false; }
  const uint8_t* peek(uint64_t pfn, uint64_t) override {
    return bytes.data() + pfn * host::kPageSize;
  }

  bool raise(uint32_t vcpus, std::vector<uint32_t> ports = {kTimers[0], kTimers[1]},
             void (*between)(Guest&) = nullptr) {
    TimerEvents timers;
    Fault fault;
    check(timers.find(*this, kShared, &fault), "looked through");
    if (between) between(*this);
    const GuestPages pages = {[&](uint64_t pfn, uint8_t* to, Fault*) {
                                std::memcpy(to, peek(pfn, 0), host::kPageSize);
                                return true;
                              },
                              [&](uint64_t pfn, const uint8_t* from, Fault*) {
                                std::memcpy(words(pfn), from, host::kPageSize);
                                ++writes;
                                return true;
                              }};
    std::string why;
    check(timers.raise(pages, kEvents, ports, vcpus, kMost, &why, &fault), "no fault");
    return why.empty();
  }
};

void raised() {
  Guest guest;
  guest.words(kEvents)[kTimers[1]] = kEventPending | kEventLinked;  // one that was pending then
  check(guest.raise(2), "all are raised");
  for (int i = 0; i < 2; ++i) {
    check(guest.words(kEvents)[kTimers[i]] == (kEventPending | kEventLinked),
          "pending, in a queue");
    check(guest.words(kBlocks[i])[0] == 1 && guest.words(kBlocks[i])[2] == kTimers[i],
          "its vCPU's first queue has it");
    check(guest.words(kBlocks[i])[2 + 7] == 13, "others stay");
    check(guest.info(kInfos[i])->upcall_pending == 1, "its vCPU is told");
  }
  check(guest.info({kShared, 0})->upcall_pending == 0,
        "what is in shared info is no vCPU's any more");
  check(guest.words(kEvents)[100] == kEventMasked, "other ports stay");
}

void not_raised() {
  const auto nothing = [](Guest& guest, bool all, const char* what) {
    check(!all && guest.writes == 0, what);
  };
  {
    Guest guest;
    nothing(guest, guest.raise(3), "a vCPU more than there are timers");
  }
  {
    Guest guest;
    nothing(guest, guest.raise(1), "a vCPU less than there are timers");
  }
  {
    Guest guest;
    nothing(guest, guest.raise(2, {5, 12}), "a port that no queue names");
  }
  {
    Guest guest;
    std::memcpy(guest.words(40), guest.words(kBlocks[0]), host::kPageSize);
    nothing(guest, guest.raise(2), "two queues that name it");
  }
  {
    Guest guest;
    guest.put_info({50, 128});
    check(guest.raise(2), "a vCPU that is off keeps its place");
  }
  {
    Guest guest;
    for (uint32_t at = 128; at < 512; at += 128) guest.put_info({50, at});
    nothing(guest, guest.raise(2), "more look like one than it can have");
  }
  {
    Guest guest;
    const auto moved = [](Guest& then) { then.info(kInfos[0])->version = 0; };
    nothing(guest, guest.raise(2, {5, 11}, moved), "it was elsewhere then");
  }
  {
    Guest guest;
    guest.info(kInfos[1])->tsc_to_system_mul = 0x80004200;
    nothing(guest, guest.raise(2), "what has another clock is no vCPU's");
  }
  {
    Guest guest;
    guest.info(kInfos[1])->tsc_shift = 0;
    nothing(guest, guest.raise(2), "what has a clock of another pace is no vCPU's");
  }
  {
    Guest guest;
    guest.put_info({50, 128});
    guest.info({50, 128})->tsc_to_system_mul = 0x80004200;
    check(guest.raise(2) && guest.info({50, 128})->upcall_pending == 0,
          "one place with another clock is left alone");
  }
  {
    Guest guest;
    for (const uint32_t at : {0, 64}) {
      guest.put_info({50, at});
      guest.info({50, at})->tsc_to_system_mul = 0x80004200;
    }
    nothing(guest, guest.raise(2), "as many places with another clock");
  }
  {
    Guest guest;
    guest.info(kInfos[1])->tsc_to_system_mul += 0x1000;
    check(guest.raise(2), "processors are not measured alike");
  }
}

void looks() {
  Guest guest;
  const VcpuInfo good = *guest.info(kInfos[0]);
  check(looks_like_vcpu_info(good), "one that Xen fills");
  VcpuInfo moved = good;
  moved.pending_selector = ~uint64_t(0);
  check(looks_like_vcpu_info(moved), "one that was moved, of a guest that does not look there");
  const auto bad = [&](void (*spoil)(VcpuInfo&), const char* what) {
    VcpuInfo other = good;
    spoil(other);
    check(!looks_like_vcpu_info(other), what);
  };
  bad([](VcpuInfo& i) { i.upcall_pending = 2; }, "no flag");
  bad([](VcpuInfo& i) { i.pending_selector = 1; }, "a word of events");
  bad([](VcpuInfo& i) { i.upcall_mask = 9; }, "no mask");
  bad([](VcpuInfo& i) { i.pad[5] = 1; }, "something between");
  bad([](VcpuInfo& i) { i.tsc_to_system_mul = 0x7fffffff; }, "a factor that is not normal");
  bad([](VcpuInfo& i) { i.system_time = 0; }, "no time");
  bad([](VcpuInfo& i) { i.end_pad[1] = 1; }, "something behind");
  bad([](VcpuInfo& i) { i.system_time = 0xffffffff82335049; }, "an address for a time");
  bad([](VcpuInfo& i) { i.tsc_timestamp = uint64_t(1) << 62; }, "no count of cycles");
}

}  // namespace

int main() {
  looks();
  raised();
  not_raised();
  return failures == 0 ? 0 : 1;
}
