// The rings between a domain and the backends of its devices. Backends go on while it stands: so
// the rings of an image are those of the beginning of its pause, and what is copied later can only
// be newer than what they say.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "host/host.h"
#include "host/xen/domain_state.h"
#include "host/xen/handles.h"
#include "host/xen/machine_map.h"

namespace dormouse::xen {

class GrantTable;

// A page of a ring, by the grant that its device names.
struct RingPage {
  uint32_t grant = 0;
  // The first page of a disk's ring. It must be empty: a response takes the place of an older
  // request that may be unanswered, so that what is left of one in use cannot be asked again.
  bool disk = false;
};

// Of each page its pfn, of 64 bits, and its bytes.
constexpr size_t kRingPageBytes = sizeof(uint64_t) + host::kPageSize;

class DeviceRings {
 public:
  DeviceRings(std::shared_ptr<Handles> xen, uint32_t domid, std::vector<RingPage> pages)
      : xen_(std::move(xen)), domid_(domid), pages_(std::move(pages)) {}
  // While the domain runs: else *missing says what no look can mend.
  bool prepare(const GrantTable& grants, std::string* missing);
  // Of a domain that stands: whether all requests to its disks are answered, which is waited for
  // for some milliseconds. Keeps the rings as they are then.
  bool look();
  const Bytes& seen() const { return seen_; }

 private:
  bool are_disks_idle() const;

  std::shared_ptr<Handles> xen_;
  uint32_t domid_;
  std::vector<RingPage> pages_;
  std::vector<uint64_t> pfns_;
  std::vector<ForeignPages> mapped_;
  Bytes seen_;
};

}  // namespace dormouse::xen
