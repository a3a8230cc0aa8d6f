#include "host/xen/device_rings.h"

#include <unistd.h>

#include <cstring>

#include "host/host.h"
#include "host/xen/domain_links.h"

namespace dormouse::xen {
namespace {

constexpr int kLooks = 50;
constexpr useconds_t kBetweenUs = 100;
// xen/include/public/io/ring.h
struct RingHead {
  uint32_t request_prod, request_event, response_prod, response_event;
};

}  // namespace

bool DeviceRings::prepare(const GrantTable& grants, std::string* missing) {
  xc_domaininfo_t info;
  Fault fault;
  std::shared_ptr<MachineMap> machine;
  const bool known = domain_info(*xen_, domid_, &info, &fault);
  if (known && !is_hvm(info)) machine = MachineMap::get(xen_, &fault);
  if (fault) *missing = fault.text;
  for (const RingPage& page : pages_) {
    if (!missing->empty()) return false;
    *missing = "a ring of its devices is none that it granted";
    if (page.grant >= grants.entries()) return false;
    const grant_entry_v1 entry = grants.data()[page.grant];
    if ((entry.flags & GTF_type_mask) != GTF_permit_access) return false;
    const xen_pfn_t frame = entry.frame;
    if (machine && frame >= machine->frames()) return false;
    ForeignPages mapped;
    int error = 0;
    if (!mapped.map(xen_, domid_, &frame, 1, &error) || error != 0) return false;
    missing->clear();
    pfns_.push_back(machine ? machine->table()[frame] : frame);
    mapped_.push_back(std::move(mapped));
  }
  return missing->empty();
}

bool DeviceRings::are_disks_idle() const {
  for (size_t i = 0; i < mapped_.size(); ++i) {
    RingHead head;
    std::memcpy(&head, mapped_[i].data(), sizeof head);
    if (pages_[i].disk && head.request_prod != head.response_prod) return false;
  }
  return true;
}

bool DeviceRings::look() {
  int looks = 1;
  for (; !are_disks_idle(); ++looks) {
    if (looks == kLooks) return false;
    usleep(kBetweenUs);
  }
  seen_.clear();
  for (size_t i = 0; i < mapped_.size(); ++i) {
    const auto* pfn = reinterpret_cast<const uint8_t*>(&pfns_[i]);
    seen_.insert(seen_.end(), pfn, pfn + sizeof pfns_[i]);
    seen_.insert(seen_.end(), mapped_[i].data(), mapped_[i].data() + host::kPageSize);
  }
  return true;
}

}  // namespace dormouse::xen
