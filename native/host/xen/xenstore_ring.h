// The ring through which a domain asks xenstored (xen/include/public/io/xs_wire.h), and when it is
// at rest: nothing asked, nothing half asked, no answer on its way.
#pragma once
#include <cstddef>
#include <cstdint>

namespace dormouse::xen {

constexpr uint32_t kRingBytes = 1024;

// As in the page that both sides share.
struct XenstoreRing {
  uint8_t requests[kRingBytes], responses[kRingBytes];
  uint32_t request_cons, request_prod, response_cons, response_prod;
};

struct XenstoreMessage {
  uint32_t type, request_id, transaction_id, bytes;
};

// Where both sides are.
struct RingIndices {
  uint32_t request_cons, request_prod, response_cons, response_prod;
  bool idle() const { return request_cons == request_prod && response_cons == response_prod; }
  bool operator==(const RingIndices& other) const {
    return request_cons == other.request_cons && request_prod == other.request_prod &&
           response_cons == other.response_cons && response_prod == other.response_prod;
  }
};

RingIndices indices_of(const XenstoreRing& ring);

// Of one that is idle: whether the guest has written the head of a request, and not yet all of its
// body. A request whose head is no longer in the ring counts as whole.
bool is_half_asked(const XenstoreRing& ring);

// Where the last message ends that is whole, of those that the guest has not read yet.
uint32_t end_of_whole_responses(const XenstoreRing& ring);

// A connection of our own to xenstored, which does one thing after another: what it had taken of a
// domain before it answers us, it has answered by then.
class XenstoredTurn {
 public:
  XenstoredTurn() = default;
  ~XenstoredTurn();
  XenstoredTurn(const XenstoredTurn&) = delete;
  XenstoredTurn& operator=(const XenstoredTurn&) = delete;
  // False where there is none at `path`.
  bool open(const char* path);
  // Whether it has answered; not if that takes too long, and never again then.
  bool pass(int timeout_ms);

 private:
  bool ask();
  bool read_some(uint8_t* to, size_t n, int64_t until_ms);
  int socket_ = -1;
};

}  // namespace dormouse::xen
