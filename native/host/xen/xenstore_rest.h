// Whether what a domain asks of xenstore is at rest, seen from outside while the domain stands.
#pragma once
#include <memory>
#include <string>

#include "host/xen/handles.h"
#include "host/xen/xenstore_ring.h"

namespace dormouse::xen {

class XenstoreRest {
 public:
  XenstoreRest(std::shared_ptr<Handles> xen, uint32_t domid)
      : xen_(std::move(xen)), domid_(domid) {}
  // While the domain runs. Else *missing says what no look can mend. `frame` is where xenstore says
  // that the ring is, 0 where it does not: a machine frame (PV) or a pfn.
  bool prepare(uint64_t frame, std::string* missing);
  // Of a domain that stands. `unread`: it may have been told what it has not read yet.
  bool look(bool unread);
  // Whether nothing has moved since that look.
  bool stays() const;

 private:
  const XenstoreRing& ring() const;

  std::shared_ptr<Handles> xen_;
  uint32_t domid_;
  ForeignPages page_;
  XenstoredTurn turn_;
  RingIndices seen_ = {};
};

// Of a domain that has nothing asked: what it was told meanwhile is dropped where there is little
// room left for more, as nobody would wake it to read. False with a fault if the ring cannot be
// mapped.
bool make_room_for_responses(const std::shared_ptr<Handles>& xen, uint32_t domid, uint64_t frame,
                             Fault* fault);

}  // namespace dormouse::xen
