#include "host/embedded/programs/programs.h"

namespace dormouse::embedded {

Outcome run_program(Vcpu& vcpu) {
  const GuestText& text = *vcpu.domain.guest;
  UserRegs& regs = vcpu.regs();
  if (text.program == kIdle || (text.steps && regs.r15 >= text.steps)) return Outcome::block;
  Outcome outcome = Outcome::block;
  switch (text.program) {
    case kCounter:
      outcome = counter_step(vcpu, text);
      break;
    case kWriter:
      outcome = writer_step(vcpu, text);
      break;
    case kChurner:
      outcome = churner_step(vcpu, text);
      break;
    case kCrasher:
      outcome = crasher_step(vcpu, text);
      break;
    case kDisker:
      outcome = disker_step(vcpu, text);
      break;
    case kTalker:
      outcome = talker_step(vcpu, text);
      break;
  }
  if (outcome == Outcome::go_on) vcpu.steps.store(++regs.r15, std::memory_order_relaxed);
  return outcome;
}

}  // namespace dormouse::embedded
