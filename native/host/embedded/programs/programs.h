// Guest programs. A program is a function that makes one step; all it knows between steps is in
// guest memory and in registers, and each vCPU works in its own share of the heap. So memory after
// N steps depends on the guest's options alone.
//
//   r15  steps done        rbx  accumulator: a hash over all that was read
#pragma once
#include "host/embedded/domain.h"
#include "host/embedded/mix.h"

namespace dormouse::embedded {

Outcome counter_step(Vcpu& vcpu, const GuestText& text);
Outcome writer_step(Vcpu& vcpu, const GuestText& text);
Outcome churner_step(Vcpu& vcpu, const GuestText& text);
Outcome crasher_step(Vcpu& vcpu, const GuestText& text);
Outcome disker_step(Vcpu& vcpu, const GuestText& text);
Outcome talker_step(Vcpu& vcpu, const GuestText& text);

// The number that decides what a step does.
inline uint64_t draw(const Vcpu& vcpu, const GuestText& text) {
  return mix(text.seed ^ mix(vcpu.context.regs.r15 * kMaxVcpus + vcpu.id));
}

// Where the counter of a vCPU is.
inline uint64_t counter_pfn(const GuestText& text, uint32_t vcpu) { return text.heap_of(vcpu); }

}  // namespace dormouse::embedded
