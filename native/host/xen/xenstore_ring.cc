#include "host/xen/xenstore_ring.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

namespace dormouse::xen {
namespace {

constexpr uint32_t kTypes = 64, kBodyMax = 4096;
// XS_GET_DOMAIN_PATH, of domain 0.
constexpr XenstoreMessage kQuestion = {10, 1, 0, 2};

XenstoreMessage message_at(const uint8_t* bytes, uint32_t at) {
  uint8_t head[sizeof(XenstoreMessage)];
  for (uint32_t i = 0; i < sizeof head; ++i) head[i] = bytes[(at + i) % kRingBytes];
  XenstoreMessage out;
  std::memcpy(&out, head, sizeof out);
  return out;
}

bool is_message(const XenstoreMessage& head) {
  return head.type < kTypes && head.bytes <= kBodyMax;
}

int64_t now_ms() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count();
}

}  // namespace

RingIndices indices_of(const XenstoreRing& ring) {
  RingIndices out;
  std::memcpy(&out, &ring.request_cons, sizeof out);
  return out;
}

// Bodies are text: of what only looks like a head some end would have to fit by chance.
bool is_half_asked(const XenstoreRing& ring) {
  constexpr uint32_t kHead = sizeof(XenstoreMessage);
  const uint32_t end = ring.request_prod;
  bool half = false;
  for (uint32_t back = kHead; back <= std::min(end, kRingBytes); ++back) {
    const XenstoreMessage head = message_at(ring.requests, end - back);
    if (!is_message(head)) continue;
    if (kHead + head.bytes == back) return false;
    half = half || kHead + head.bytes > back;
  }
  return half;
}

uint32_t end_of_whole_responses(const XenstoreRing& ring) {
  uint32_t at = ring.response_cons;
  const uint32_t end = ring.response_prod;
  if (end - at > kRingBytes) return at;
  while (end - at >= sizeof(XenstoreMessage)) {
    const XenstoreMessage head = message_at(ring.responses, at);
    if (!is_message(head) || sizeof head + head.bytes > end - at) break;
    at += uint32_t(sizeof head) + head.bytes;
  }
  return at;
}

XenstoredTurn::~XenstoredTurn() {
  if (socket_ >= 0) close(socket_);
}

bool XenstoredTurn::open(const char* path) {
  sockaddr_un at = {};
  at.sun_family = AF_UNIX;
  if (std::strlen(path) >= sizeof at.sun_path) return false;
  std::memcpy(at.sun_path, path, std::strlen(path));
  socket_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket_ < 0) return false;
  return connect(socket_, reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0;
}

bool XenstoredTurn::ask() {
  uint8_t bytes[sizeof kQuestion + 2];
  std::memcpy(bytes, &kQuestion, sizeof kQuestion);
  std::memcpy(bytes + sizeof kQuestion, "0", 2);
  return send(socket_, bytes, sizeof bytes, MSG_NOSIGNAL | MSG_DONTWAIT) == ssize_t(sizeof bytes);
}

bool XenstoredTurn::read_some(uint8_t* to, size_t n, int64_t until_ms) {
  while (n > 0) {
    const int64_t left = until_ms - now_ms();
    pollfd wait = {socket_, POLLIN, 0};
    if (left <= 0) return false;
    const int ready = poll(&wait, 1, int(left));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return false;
    const ssize_t got = recv(socket_, to, n, MSG_DONTWAIT);
    if (got <= 0) return false;
    to += got;
    n -= size_t(got);
  }
  return true;
}

bool XenstoredTurn::pass(int timeout_ms) {
  if (socket_ < 0) return false;
  const int64_t until = now_ms() + timeout_ms;
  XenstoreMessage head;
  uint8_t body[kBodyMax];
  const bool answered = ask() && read_some(reinterpret_cast<uint8_t*>(&head), sizeof head, until) &&
                        head.bytes <= sizeof body && read_some(body, head.bytes, until);
  if (answered) return true;
  close(socket_);
  socket_ = -1;
  return false;
}

}  // namespace dormouse::xen
