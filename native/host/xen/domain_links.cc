#include "host/xen/domain_links.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "host/xen/event_words.h"

namespace dormouse::xen {
namespace {

// More ports than one page has words for are not handled.
constexpr size_t kPortsCap = kEventWords;
constexpr uint32_t kVirqTimer = 0;
constexpr const char* kAsking = "it was asking something of xenstore";
// Words that ports had before they were closed.
constexpr size_t kLeftOver = 64;

bool is_virq(uint8_t channel) { return channel == EVTCHNSTAT_virq || channel == kTimerChannel; }

// Of a port that has no channel the word is what the guest's kernel makes it at the beginning, or
// nearly; of most that have one it is not.
bool fits_channels(const uint32_t* words, const Bytes& channels) {
  size_t used = 0, in_use = 0, other = 0;
  for (size_t port = 0; port < kEventWords; ++port) {
    const uint32_t word = words[port];
    if (word & kEventReserved) return false;
    if (port < channels.size() && channels[port] != EVTCHNSTAT_closed) {
      ++used;
      in_use += word != kEventMasked;
    } else {
      other += word != kEventMasked;
      if (word & (kEventPending | kEventLinked)) return false;
    }
  }
  return in_use * 2 >= used && other <= kLeftOver;
}

}  // namespace

bool is_device_channel(const Bytes& channels, const RingEnds& rings, size_t port) {
  if (port >= channels.size() || port == rings.store_port || port == rings.console_port)
    return false;
  return channels[port] == EVTCHNSTAT_interdomain || channels[port] == EVTCHNSTAT_unbound;
}

bool read_channels(const Handles& xen, uint32_t domid, Bytes* channels, Fault* fault) {
  channels->clear();
  size_t used = 0;
  for (uint32_t port = 0; port <= kPortsCap; ++port) {
    xc_evtchn_status_t status = {};
    status.dom = domid_t(domid);
    status.port = port;
    if (xc_evtchn_status(xen.xc(), &status) != 0) {
      if (errno == EINVAL) break;  // past the last one
      return raise_errno(fault, "evtchn_status", domid);
    }
    const bool timer = status.status == EVTCHNSTAT_virq && status.u.virq == kVirqTimer;
    channels->push_back(timer ? kTimerChannel : uint8_t(status.status));
    if (status.status != EVTCHNSTAT_closed) used = channels->size();
  }
  channels->resize(used);
  return true;
}

GrantTable::~GrantTable() {
  if (mapped_) xenforeignmemory_unmap_resource(xen_->memory(), mapped_);
}

bool GrantTable::map(std::shared_ptr<Handles> xen, uint32_t domid, bool writable, Fault* fault) {
  const int version = xc_gnttab_get_version(xen->xc(), domid);
  if (version < 0) return raise_errno(fault, "reading the grant table", domid);
  if (version != 1) return fault->raise("HOST_LACKS", "its grant table is not of version 1");
  gnttab_query_size size = {};
  size.dom = domid_t(domid);
  if (xc_gnttab_op(xen->xc(), GNTTABOP_query_size, &size, sizeof size, 1) != 0 ||
      size.status != GNTST_okay)
    return raise_errno(fault, "reading the grant table", domid);
  xen_ = std::move(xen);
  if (size.nr_frames == 0) return true;
  mapped_ =
      xenforeignmemory_map_resource(xen_->memory(), domid_t(domid), XENMEM_resource_grant_table,
                                    XENMEM_resource_grant_table_id_shared, 0, size.nr_frames, &at_,
                                    writable ? PROT_READ | PROT_WRITE : PROT_READ, 0);
  if (!mapped_) return raise_errno(fault, "mapping the grant table", domid);
  frames_ = size.nr_frames;
  return true;
}

void DomainLinks::prepare() {
  Fault fault;
  if (!xenstore_.prepare(rings_.store_port == 0 ? 0 : rings_.store_frame, &missing_)) return;
  if (!grants_.map(xen_, domid_, false, &fault)) missing_ = fault.text;
  if (missing_.empty()) device_rings_.prepare(grants_, &missing_);
}

const uint32_t* DomainLinks::event_words(uint64_t pfn) const {
  uint64_t entry = 0;
  Fault ignored;
  if (pfn >= memory_->nr_pfns() || !memory_->query(pfn, 1, &entry, &ignored)) return nullptr;
  return reinterpret_cast<const uint32_t*>(memory_->peek(pfn, entry));
}

// Xen tells which ports there are, but not where their words are: that page is known by them.
bool DomainLinks::find_event_array(uint64_t* pfn) const {
  size_t fitting = 0;
  for (const uint64_t candidate : event_pages_) {
    const uint32_t* words = event_words(candidate);
    if (!words) continue;
    if (!fits_channels(words, found_.channels)) continue;
    *pfn = candidate;
    ++fitting;
  }
  return fitting == 1;
}

// Events of devices can be raised again, a timer has a queue of its own: all others must not be on
// their way.
void DomainLinks::look_at_events(bool* soon) {
  if (found_.channels.size() > kPortsCap) {
    found_.unfit = "it has more than " + std::to_string(kPortsCap) + " event channels";
    return;
  }
  if (!find_event_array(&found_.event_array)) {
    found_.unfit = "its event words were not found";
    return;
  }
  const uint32_t* words = event_words(found_.event_array);
  for (size_t port = 0; port < found_.channels.size(); ++port) {
    const uint8_t channel = found_.channels[port];
    if (channel == EVTCHNSTAT_closed || channel == kTimerChannel) continue;
    if (is_device_channel(found_.channels, rings_, port)) continue;
    // One that is masked is in no queue: it pends until its owner looks.
    const uint32_t at = words[port] & (kEventPending | kEventMasked | kEventLinked);
    if (at != kEventPending && !(at & kEventLinked)) continue;
    const char* whose = is_virq(channel) ? "a virtual interrupt" : "an event between its vCPUs";
    if (channel == EVTCHNSTAT_interdomain) whose = "an event of xenstore's or the console's";
    found_.unfit = std::string(whose) + " was on its way (port " + std::to_string(port) + ")";
    *soon = true;
    return;
  }
}

// A PV vCPU that is off keeps its registers for when it is switched on again, and no image has
// them.
bool DomainLinks::look_at_vcpus(Fault* fault) {
  xc_domaininfo_t domain;
  if (!domain_info(*xen_, domid_, &domain, fault)) return false;
  for (uint32_t id = 0; !is_hvm(domain) && id <= domain.max_vcpu_id; ++id) {
    xc_vcpuinfo_t info;
    vcpu_guest_context_any_t context;
    if (xc_vcpu_getinfo(xen_->xc(), domid_, id, &info) != 0 || info.online) continue;
    if (xc_vcpu_getcontext(xen_->xc(), domid_, id, &context) != 0) continue;
    found_.unfit = "vCPU " + std::to_string(id) + " is switched off";
  }
  return true;
}

bool DomainLinks::look(bool* soon, Fault* fault) {
  found_ = {};
  found_.unfit = missing_;
  *soon = false;
  if (!missing_.empty()) return true;
  if (!look_at_vcpus(fault)) return false;
  if (!found_.unfit.empty()) return true;
  // First, as backends go on.
  if (!device_rings_.look()) {
    found_.unfit = "a request to a disk of its was on its way";
    *soon = true;
    return true;
  }
  if (!read_channels(*xen_, domid_, &found_.channels, fault)) return false;
  look_at_events(soon);
  // Last, as it takes longest.
  if (!found_.unfit.empty() || xenstore_.look(false)) return true;
  found_.unfit = kAsking;
  *soon = true;
  return true;
}

void DomainLinks::read(LinksBlobs* out) {
  // An answer that came meanwhile was on its way when the domain stopped.
  if (found_.unfit.empty() && !xenstore_.stays()) found_.unfit = kAsking;
  if (found_.unfit.empty() && grants_.bytes() != 0) {
    const auto* from = reinterpret_cast<const uint8_t*>(grants_.data());
    found_.grants.assign(from, from + grants_.bytes());
  }
  if (found_.unfit.empty()) found_.rings = device_rings_.seen();
  *out = found_;
  if (!out->unfit.empty()) *out = {out->unfit, {}, {}, 0, {}};
}

}  // namespace dormouse::xen
