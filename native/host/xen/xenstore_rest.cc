#include "host/xen/xenstore_rest.h"

#include <xen/io/xs_wire.h>

#include <cerrno>
#include <cstddef>

namespace dormouse::xen {
namespace {

static_assert(sizeof xenstore_domain_interface::req == kRingBytes);
static_assert(offsetof(xenstore_domain_interface, req_cons) ==
              offsetof(XenstoreRing, request_cons));
static_assert(offsetof(xenstore_domain_interface, rsp_prod) ==
              offsetof(XenstoreRing, response_prod));
static_assert(sizeof(xsd_sockmsg) == sizeof(XenstoreMessage));

constexpr const char* kSockets[] = {"/run/xenstored/socket", "/var/run/xenstored/socket",
                                    "/var/lib/xenstored/socket"};
// Of a domain that stands: xenstored answers in less than one.
constexpr int kTurnMs = 50;
// Room for what xenstored tells of a device's states.
constexpr uint32_t kRoom = 512;

bool map_ring(const std::shared_ptr<Handles>& xen, uint32_t domid, uint64_t frame, bool writable,
              ForeignPages* page) {
  const xen_pfn_t list = frame;
  int error = 0;
  if (page->map(xen, domid, &list, 1, &error, writable) && error == 0) return true;
  if (error) errno = error < 0 ? -error : error;
  return false;
}

}  // namespace

const XenstoreRing& XenstoreRest::ring() const {
  return *reinterpret_cast<const XenstoreRing*>(page_.data());
}

bool XenstoreRest::prepare(uint64_t frame, std::string* missing) {
  if (frame == 0)
    *missing = "it has no ring of xenstore's";
  else if (!map_ring(xen_, domid_, frame, false, &page_))
    *missing = "its ring of xenstore's cannot be mapped";
  if (!missing->empty()) return false;
  for (const char* path : kSockets)
    if (turn_.open(path)) return true;
  *missing = "xenstored has no socket on this machine";
  return false;
}

bool XenstoreRest::look(bool unread) {
  seen_ = indices_of(ring());
  const bool asked = seen_.request_cons != seen_.request_prod || is_half_asked(ring());
  const bool told = unread ? end_of_whole_responses(ring()) != seen_.response_prod : !seen_.idle();
  if (asked || told) return false;
  // What xenstored took before this it has answered now; one that serves us first in the next turn.
  return turn_.pass(kTurnMs) && turn_.pass(kTurnMs) && stays();
}

bool XenstoreRest::stays() const { return indices_of(ring()) == seen_; }

bool make_room_for_responses(const std::shared_ptr<Handles>& xen, uint32_t domid, uint64_t frame,
                             Fault* fault) {
  if (frame == 0) return true;
  ForeignPages page;
  if (!map_ring(xen, domid, frame, true, &page))
    return raise_errno(fault, "mapping its ring of xenstore's", domid);
  auto* ring = reinterpret_cast<XenstoreRing*>(page.writable_data());
  const RingIndices now = indices_of(*ring);
  if (now.response_prod - now.response_cons <= kRingBytes - kRoom) return true;
  const uint32_t end = end_of_whole_responses(*ring);
  __atomic_store_n(&ring->response_cons, end, __ATOMIC_RELEASE);
  return true;
}

}  // namespace dormouse::xen
