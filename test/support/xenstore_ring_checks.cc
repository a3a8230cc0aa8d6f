// When the ring between a guest and xenstored counts as at rest, and a turn of a xenstored that
// answers, is silent or drips.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "host/xen/xenstore_ring.h"

using namespace dormouse::xen;

namespace {

int failures = 0;

void check(bool holds, const std::string& what) {
  if (holds) return;
  std::printf("not so: %s\n", what.c_str());
  ++failures;
}

struct Guest {
  XenstoreRing ring = {};
  std::mt19937_64 random;
  uint32_t id = 0;

  explicit Guest(uint64_t seed) : random(seed) {
    // Somewhere in the life of a ring.
    ring.request_prod = ring.request_cons = uint32_t(random());
    ring.response_prod = ring.response_cons = uint32_t(random());
  }
  static void put(uint8_t* ring, uint32_t* prod, const void* from, uint32_t n) {
    for (uint32_t i = 0; i < n; ++i)
      ring[(*prod)++ % kRingBytes] = static_cast<const uint8_t*>(from)[i];
  }
  std::string body() {
    static const char* paths[] = {"device/vif/0/state", "/local/domain/0/backend/vbd/5/51712/state",
                                  "data", "control/shutdown", "memory/target"};
    return std::string(paths[random() % 5]) + '\0' + std::to_string(random() % 100000);
  }
  // The first `bytes` of a request, and xenstored takes them.
  uint32_t ask(uint32_t bytes) {
    const std::string text = body();
    const XenstoreMessage head = {uint32_t(random() % 22), ++id, uint32_t(random() % 3),
                                  uint32_t(text.size())};
    std::string whole(reinterpret_cast<const char*>(&head), sizeof head);
    whole += text;
    const uint32_t n = std::min<uint32_t>(bytes, uint32_t(whole.size()));
    put(ring.requests, &ring.request_prod, whole.data(), n);
    ring.request_cons = ring.request_prod;
    return uint32_t(whole.size());
  }
  // As much of a message as there is room for; whether that is all of it.
  bool tell() {
    const std::string text = body();
    const XenstoreMessage head = {15, 0, 0, uint32_t(text.size())};
    std::string whole(reinterpret_cast<const char*>(&head), sizeof head);
    whole += text;
    const uint32_t room = kRingBytes - (ring.response_prod - ring.response_cons);
    const uint32_t n = std::min<uint32_t>(room, uint32_t(whole.size()));
    put(ring.responses, &ring.response_prod, whole.data(), n);
    return n == whole.size();
  }
};

void half_asked() {
  int mistaken = 0;
  for (uint64_t seed = 1; seed <= 2000; ++seed) {
    Guest guest(seed);
    const std::string which = " (seed " + std::to_string(seed) + ")";
    for (int i = 0; i < int(seed % 40); ++i) guest.ask(~0u);
    check(!is_half_asked(guest.ring), "what was asked whole is" + which);
    check(indices_of(guest.ring).idle(), "and taken" + which);
    // A guest writes the head and then each part of the body.
    guest.ask(uint32_t(sizeof(XenstoreMessage)));
    mistaken += !is_half_asked(guest.ring);
  }
  // By chance a request before it can look like one that ends there.
  check(mistaken <= 10, "a head without its body is half a request: " + std::to_string(mistaken));
  check(!is_half_asked(XenstoreRing{}), "a ring that was never used is at rest");
}

void whole_responses() {
  for (uint64_t seed = 1; seed <= 2000; ++seed) {
    Guest guest(seed);
    const std::string which = " (seed " + std::to_string(seed) + ")";
    const uint32_t begin = guest.ring.response_prod;
    uint32_t whole = begin;
    while (guest.tell()) whole = guest.ring.response_prod;
    check(end_of_whole_responses(guest.ring) == whole, "a message that is not whole stays" + which);
    guest.ring.response_prod = begin;
    check(end_of_whole_responses(guest.ring) == begin, "of nothing there is no end" + which);
    guest.ring.response_prod = begin + kRingBytes + 1 + uint32_t(seed);
    check(end_of_whole_responses(guest.ring) == begin, "absurd indices are left alone" + which);
  }
}

// One that answers `answer` to each question, in pieces.
struct Daemon {
  std::string path = "/tmp/xenstored-" + std::to_string(getpid());
  int listening = socket(AF_UNIX, SOCK_STREAM, 0);
  std::thread thread;

  explicit Daemon(std::string answer) {
    sockaddr_un at = {};
    at.sun_family = AF_UNIX;
    std::memcpy(at.sun_path, path.data(), path.size());
    unlink(path.c_str());
    if (bind(listening, reinterpret_cast<sockaddr*>(&at), sizeof at) != 0 ||
        listen(listening, 1) != 0)
      check(false, "a socket");
    thread = std::thread([this, answer = std::move(answer)] {
      const int one = accept(listening, nullptr, nullptr);
      char question[64];
      while (read(one, question, sizeof question) == 18)
        for (const char byte : answer) (void)!write(one, &byte, 1);
      close(one);
    });
  }
  ~Daemon() {
    thread.join();
    close(listening);
    unlink(path.c_str());
  }
};

std::string answer(uint32_t bytes, uint32_t body) {
  const XenstoreMessage head = {10, 1, 0, bytes};
  return std::string(reinterpret_cast<const char*>(&head), sizeof head) + std::string(body, 'x');
}

void turns() {
  {
    Daemon daemon(answer(16, 16));
    XenstoredTurn turn;
    check(turn.open(daemon.path.c_str()), "it is there");
    check(turn.pass(5000) && turn.pass(5000), "each answer is read whole");
  }
  for (const std::string& bad : {std::string(), answer(16, 15), answer(1 << 20, 100)}) {
    Daemon daemon(bad);
    XenstoredTurn turn;
    turn.open(daemon.path.c_str());
    check(!turn.pass(20), "no answer, half of one, or one too long");
    check(!turn.pass(5000), "and it is not asked again");
  }
  XenstoredTurn none;
  check(!none.open("/nowhere") && !none.pass(20), "there is none");
}

}  // namespace

int main() {
  std::signal(SIGPIPE, SIG_IGN);
  half_asked();
  whole_responses();
  turns();
  return failures == 0 ? 0 : 1;
}
