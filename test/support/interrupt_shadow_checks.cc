// Whether a vCPU is taken to stand in the interrupt shadow, and how a guest that does is paused.
#include <cstdio>
#include <new>
#include <string>

#include "host/xen/interrupt_shadow.h"

using namespace dormouse;
using namespace dormouse::xen;

namespace {

int failures = 0;

void check(bool holds, const char* what) {
  if (holds) return;
  std::printf("not so: %s\n", what);
  ++failures;
}

StoppedVcpu vcpu(uint8_t first, uint8_t last, uint32_t flags = 0x202, uint8_t privilege = 0) {
  return {1, flags, privilege, true, {first, last}};
}

void judge() {
  check(may_be_in_shadow(vcpu(0x90, 0xfb)), "right after sti");
  for (int reg = 0; reg < 8; ++reg)
    check(may_be_in_shadow(vcpu(0x8e, uint8_t(0xd0 + reg))), "right after mov ss, register");
  const uint8_t others[][2] = {
      {0xfb, 0xf4}, {0x8e, 0xd8}, {0x8e, 0xcf}, {0x8c, 0xd0}, {0x90, 0x90}};
  for (const auto& before : others)
    check(!may_be_in_shadow(vcpu(before[0], before[1])), "hlt, mov ds and others have no shadow");
  check(!may_be_in_shadow(vcpu(0x90, 0xfb, 0x2)), "one that takes no interrupts has none");
  check(!may_be_in_shadow(vcpu(0x90, 0xfb, 0x202, 3)), "a process has none");
  StoppedVcpu unread = vcpu(0x90, 0xfb);
  unread.readable = false;
  check(!may_be_in_shadow(unread), "code that cannot be read is not judged");
}

struct Seen {
  std::string calls;
  std::vector<uint32_t> in_shadow;
  bool good = false;
};

// A guest that stands in the shadow in its first `times` pauses, and of which pause number `fails`
// cannot be looked at; in the first `restless` it is not at rest.
Seen pausing(int times, int fails = -1, char how = 'v', int restless = 0) {
  Seen seen;
  int pauses = 0;
  const auto fails_now = [&](char which) { return which == how && pauses == fails; };
  const auto pause = [&](Fault* fault) {
    seen.calls += 'p';
    ++pauses;
    return !fails_now('p') || fault->raise("INTERNAL", "p");
  };
  const auto unpause = [&](Fault* fault) {
    seen.calls += 'u';
    return !fails_now('u') || fault->raise("INTERNAL", "u");
  };
  const auto vcpus = [&](std::vector<StoppedVcpu>* out, Fault* fault) {
    if (fails_now('t')) throw std::bad_alloc();
    if (fails_now('v')) return fault->raise("INTERNAL", "v");
    out->push_back(vcpu(0xfb, 0xf4));
    out->push_back(vcpu(0x90, pauses <= times ? 0xfb : 0xf4));
    out->back().id = 3;
    return true;
  };
  const auto rests = [&](bool* at_rest, Fault* fault) {
    if (fails_now('r')) return fault->raise("INTERNAL", "r");
    *at_rest = pauses > restless;
    return true;
  };
  Fault fault;
  seen.good = pause_outside_shadow({pause, unpause, vcpus, rests}, &seen.in_shadow, &fault);
  return seen;
}

}  // namespace

int main() {
  judge();
  const Seen at_once = pausing(0), third = pausing(2), never = pausing(1000),
             failed = pausing(5, 2);
  check(at_once.good && at_once.calls == "p" && at_once.in_shadow.empty(), "paused once");
  check(third.good && third.calls == "pupup" && third.in_shadow.empty(), "let go on until it left");
  check(never.good && never.calls == "pupupupupupupup", "tried eight times, then left paused");
  check(never.in_shadow == std::vector<uint32_t>{3}, "and told of");
  check(!failed.good && failed.calls == "pupu", "not paused after a fault");
  check(pausing(5, 2, 't').calls == "pupu" && !pausing(5, 2, 't').good, "nor after an exception");
  check(pausing(5, 2, 'p').calls == "pup" && !pausing(5, 2, 'p').good, "one that cannot be paused");
  check(pausing(5, 2, 'u').calls == "pupu" && !pausing(5, 2, 'u').good, "nor unpaused");
  check(pausing(5, 2, 'r').calls == "pupu" && !pausing(5, 2, 'r').good, "nor looked at");
  check(pausing(0, -1, 'r', 2).calls == "pupup", "let go on until it is at rest");
  check(pausing(0, -1, 'r', 100).calls == "pupupupupupupup", "but not for ever");
  return failures == 0 ? 0 : 1;
}
