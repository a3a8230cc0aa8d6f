#include "host/xen/interrupt_shadow.h"

#include <unistd.h>

#include "guard.h"

namespace dormouse::xen {
namespace {

constexpr uint32_t kTakesInterrupts = 1 << 9;
constexpr uint8_t kSti = 0xfb, kMovToSegment = 0x8e;
// How often a guest is paused anew before it is left where it is, and how long it runs in between.
constexpr int kTriesMax = 8;
constexpr useconds_t kRunUs = 200;

bool look(const Pauses& pauses, std::vector<uint32_t>* in_shadow, bool* rests, Fault* fault) {
  std::vector<StoppedVcpu> vcpus;
  if (!pauses.vcpus(&vcpus, fault)) return false;
  in_shadow->clear();
  for (const StoppedVcpu& vcpu : vcpus)
    if (may_be_in_shadow(vcpu)) in_shadow->push_back(vcpu.id);
  *rests = true;
  return !pauses.rests || pauses.rests(rests, fault);
}

}  // namespace

bool may_be_in_shadow(const StoppedVcpu& vcpu) {
  if (!vcpu.readable || vcpu.privilege != 0 || !(vcpu.flags & kTakesInterrupts)) return false;
  if (vcpu.before[1] == kSti) return true;
  // mov ss, register: the register field says ss, the mode a register.
  return vcpu.before[0] == kMovToSegment && (vcpu.before[1] & 0xf8) == 0xd0;
}

bool pause_outside_shadow(const Pauses& pauses, std::vector<uint32_t>* in_shadow, Fault* fault) {
  for (int tries = 1;; ++tries) {
    if (!pauses.pause(fault)) return false;
    bool rests = true;
    if (!guarded(fault, [&] { return look(pauses, in_shadow, &rests, fault); })) {
      // The first fault is the one to tell.
      Fault second;
      pauses.unpause(&second);
      return false;
    }
    if ((in_shadow->empty() && rests) || tries == kTriesMax) return true;
    if (!pauses.unpause(fault)) return false;
    usleep(kRunUs);
  }
}

}  // namespace dormouse::xen
