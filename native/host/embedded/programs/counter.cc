// counter: adds one to a word in memory. crasher: the same, until vCPU 0 reaches the step at which
// it brings the domain down.
#include "host/embedded/programs/programs.h"

namespace dormouse::embedded {

Outcome counter_step(Vcpu& vcpu, const GuestText& text) {
  const uint64_t address = linear(counter_pfn(text, vcpu.id));
  uint64_t count;
  if (!vcpu.load(address, &count)) return Outcome::end;
  vcpu.regs().rbx = mix(vcpu.regs().rbx ^ count);
  return vcpu.store(address, count + 1) ? Outcome::go_on : Outcome::end;
}

Outcome crasher_step(Vcpu& vcpu, const GuestText& text) {
  if (vcpu.id == 0 && vcpu.regs().r15 >= text.crash_at) {
    vcpu.domain.guest_shutdown(kCrash, "crasher: reached its step");
    return Outcome::end;
  }
  return counter_step(vcpu, text);
}

}  // namespace dormouse::embedded
