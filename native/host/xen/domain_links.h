// What ties a domain to others at one instant: the grants that it gave and its event channels. With
// them it can go back to that instant in place, if it was at rest: nothing asked of xenstore, and
// no event on its way that nobody could raise again.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "host/xen/device_rings.h"
#include "host/xen/domain_state.h"
#include "host/xen/xen_memory.h"
#include "host/xen/xenstore_rest.h"

namespace dormouse::xen {

// What xenstore says of the two rings that every domain has. The frame is a machine frame (PV) or a
// pfn.
struct RingEnds {
  uint64_t store_frame = 0;
  uint32_t store_port = 0, console_port = 0;
};

// A port is what Xen calls its status (EVTCHNSTAT_*), or a timer's.
constexpr uint8_t kTimerChannel = 128 | EVTCHNSTAT_virq;

struct LinksBlobs {
  std::string unfit;         // why the domain cannot go back to this instant in place; else empty
  Bytes grants;              // the frames of its grant table, of version 1
  Bytes channels;            // by port
  uint64_t event_array = 0;  // the pfn of its event words
  Bytes rings;               // of its devices, kRingPageBytes each
};

// One that the domain's backends have the other end of.
bool is_device_channel(const Bytes& channels, const RingEnds& rings, size_t port);

// Of a domain that stands still; trailing closed ports are left out.
bool read_channels(const Handles& xen, uint32_t domid, Bytes* channels, Fault* fault);

// The shared frames of the grant table. Writable ones may be written while the domain stands.
class GrantTable {
 public:
  ~GrantTable();
  GrantTable() = default;
  GrantTable(const GrantTable&) = delete;
  GrantTable& operator=(const GrantTable&) = delete;
  // HOST_LACKS for a table of version 2.
  bool map(std::shared_ptr<Handles> xen, uint32_t domid, bool writable, Fault* fault);
  size_t entries() const { return bytes() / sizeof(grant_entry_v1); }
  size_t bytes() const { return frames_ * host::kPageSize; }
  grant_entry_v1* data() const { return static_cast<grant_entry_v1*>(at_); }

 private:
  std::shared_ptr<Handles> xen_;
  xenforeignmemory_resource_handle* mapped_ = nullptr;
  void* at_ = nullptr;
  size_t frames_ = 0;
};

class DomainLinks {
 public:
  // `event_pages` are those that look like Xen's.
  DomainLinks(std::shared_ptr<Handles> xen, uint32_t domid, std::shared_ptr<XenMemory> memory,
              RingEnds rings, std::vector<RingPage> ring_pages, std::vector<uint64_t> event_pages)
      : xen_(std::move(xen)),
        domid_(domid),
        memory_(std::move(memory)),
        rings_(rings),
        event_pages_(std::move(event_pages)),
        xenstore_(xen_, domid),
        device_rings_(xen_, domid, std::move(ring_pages)) {}
  // While the domain runs: maps what is read when it stands. What is missing is told by look().
  void prepare();
  // Each time it stands. *soon: it is not at rest, but may be a moment later.
  bool look(bool* soon, Fault* fault);
  // At the end of a pause that look() was the beginning of.
  void read(LinksBlobs* out);

 private:
  bool find_event_array(uint64_t* pfn) const;
  const uint32_t* event_words(uint64_t pfn) const;
  void look_at_events(bool* soon);
  bool look_at_vcpus(Fault* fault);

  std::shared_ptr<Handles> xen_;
  uint32_t domid_;
  std::shared_ptr<XenMemory> memory_;
  RingEnds rings_;
  std::vector<uint64_t> event_pages_;
  GrantTable grants_;
  XenstoreRest xenstore_;
  DeviceRings device_rings_;
  std::string missing_;  // that no look can mend
  LinksBlobs found_;
};

}  // namespace dormouse::xen
