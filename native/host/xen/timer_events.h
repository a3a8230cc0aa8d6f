// The timers of a domain that goes back in place. Xen has one for each vCPU and does not let itself
// be told when it is to fire: one that was set then is set no more, or fired meanwhile into event
// words that are no more. So each is raised as Xen would raise it, once: a kernel takes a timer
// that comes early. For this the guest's pages must be known in which Xen tells its vCPUs of
// events; Xen does not say which they are, so they are known by their looks.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "host/host.h"

namespace dormouse::xen {

// struct vcpu_info of 64-bit guests, as Xen fills it (xen/include/public/xen.h).
struct VcpuInfo {
  uint8_t upcall_pending, upcall_mask, pad[6];
  uint64_t pending_selector, cr2, arch_pad;
  uint32_t version, time_pad;
  uint64_t tsc_timestamp, system_time;
  uint32_t tsc_to_system_mul;
  int8_t tsc_shift;
  uint8_t flags, end_pad[2];
};
static_assert(sizeof(VcpuInfo) == 64);

bool looks_like_vcpu_info(const VcpuInfo& info);
bool have_one_clock(const VcpuInfo& a, const VcpuInfo& b);

// Of a domain that stands and may be written to; a page at a time.
struct GuestPages {
  std::function<bool(uint64_t pfn, uint8_t* to, Fault* fault)> read;
  std::function<bool(uint64_t pfn, const uint8_t* from, Fault* fault)> write;
};

class TimerEvents {
 public:
  // While the domain runs. Reads a little of every page. `besides`: the pfn of shared info, where
  // it is one of the domain's, in which vCPUs have theirs before they have it moved; else any.
  bool find(host::DomainMemory& memory, uint64_t besides, Fault* fault);
  // Of a domain whose pages are as they were then: makes the timers of these ports pending, whose
  // words are in the page `event_array`. *why: what kept it from being done for all `on` vCPUs;
  // then nothing was done. The domain has at most `most`.
  bool raise(const GuestPages& pages, uint64_t event_array, const std::vector<uint32_t>& ports,
             uint32_t on, uint32_t most, std::string* why, Fault* fault) const;

 private:
  struct Place {
    uint64_t pfn;
    uint32_t offset;
  };
  void keep_one_clock(const std::vector<VcpuInfo>& seen);
  bool find_block(const GuestPages& pages, uint32_t port, uint64_t* pfn, bool* found,
                  Fault* fault) const;
  bool are_there(const GuestPages& pages, bool* there, Fault* fault) const;

  std::vector<uint64_t> event_pages_;
  std::vector<Place> vcpu_infos_;
};

}  // namespace dormouse::xen
