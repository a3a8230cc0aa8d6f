// counter: adds one to a word in memory. crasher: the same, until the step at which it brings the
// domain down.
#include "host/embedded/guest_kernel.h"
#include "host/embedded/programs/programs.h"

namespace dormouse::embedded {

Outcome counter_step(Vcpu& vcpu, const GuestText& text) {
  const uint64_t address = linear(counter_pfn(text, vcpu.id));
  uint64_t count;
  if (!vcpu.load(address, &count)) return Outcome::end;
  vcpu.regs().rbx = mix(vcpu.regs().rbx ^ count);
  return vcpu.store(address, count + 1) ? Outcome::go_on : Outcome::end;
}

// The others wait at the step of the crash and vCPU 0 waits for them, so that a crashed domain's
// memory is as much a matter of its options as any other's.
Outcome crasher_step(Vcpu& vcpu, const GuestText& text) {
  if (vcpu.regs().r15 < text.crash_at) return counter_step(vcpu, text);
  if (vcpu.id != 0) return Outcome::block;
  for (const auto& other : vcpu.domain.vcpus)
    if (other->steps.load(std::memory_order_acquire) < text.crash_at) return Outcome::wait;
  GuestKernel(vcpu.domain).enter_suspend_point();
  vcpu.domain.guest_shutdown(kCrash, "crasher: reached its step");
  return Outcome::end;
}

}  // namespace dormouse::embedded
