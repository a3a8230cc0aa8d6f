// writer: stores to pseudo-random pages of its working set. Most steps write one word; some fill a
// page, some copy what another page holds through the accumulator, so that a page lost anywhere
// spreads to all that is written later.
#include "host/embedded/programs/programs.h"

namespace dormouse::embedded {

namespace {

uint64_t pick_page(const Vcpu& vcpu, const GuestText& text, uint64_t random) {
  const uint64_t share = text.heap_share();
  uint64_t set = text.working_set ? text.working_set / text.vcpus : share;
  set = set < 1 ? 1 : set > share ? share : set;
  const uint64_t hot = set / 10 ? set / 10 : 1;
  const uint64_t among = (random >> 32) % 100 < text.skew ? hot : set;
  return text.heap_of(vcpu.id) + (random & 0xffffffff) % among;
}

}  // namespace

Outcome writer_step(Vcpu& vcpu, const GuestText& text) {
  const uint64_t random = draw(vcpu, text);
  const uint64_t page = linear(pick_page(vcpu, text, mix(random)));
  const uint64_t word = random >> 8 & 511;
  uint64_t& sum = vcpu.regs().rbx;
  if (random % 16 == 0) {
    uint64_t* words = vcpu.store_page(page);
    if (!words) return Outcome::end;
    for (uint64_t i = 0; i < 512; i++) words[i] = (sum ^ random) + i;
    return Outcome::go_on;
  }
  if (random % 16 <= 4) {
    const uint64_t from = linear(pick_page(vcpu, text, mix(random + 1)));
    uint64_t value;
    if (!vcpu.load(from + (random >> 20 & 511) * 8, &value)) return Outcome::end;
    sum = mix(sum ^ value);
  }
  return vcpu.store(page + word * 8, sum ^ random) ? Outcome::go_on : Outcome::end;
}

}  // namespace dormouse::embedded
