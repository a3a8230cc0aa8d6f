#include "host/xen/xen_stoppable.h"

#include "host/xen/control.h"
#include "host/xen/stopped_vcpus.h"

namespace dormouse::xen {

bool unpause_domain(const Handles& xen, uint32_t domid, Fault* fault) {
  return xc_domain_unpause(xen.xc(), domid) == 0 || raise_errno(fault, "unpause", domid);
}

bool pause_domain(const Handles& xen, uint32_t domid, XenMemory* memory,
                  std::vector<uint32_t>* in_shadow, Fault* fault) {
  const auto pause = [&](Fault* why) {
    return xc_domain_pause(xen.xc(), domid) == 0 || raise_errno(why, "pause", domid);
  };
  const auto unpause = [&](Fault* why) { return unpause_domain(xen, domid, why); };
  // A PV guest has no such shadow: Xen itself brings its events.
  const bool visible = memory && !memory->p2m();
  const auto vcpus = [&](std::vector<StoppedVcpu>* out, Fault* why) {
    return !visible || stopped_vcpus(xen, domid, *memory, out, why);
  };
  return pause_outside_shadow({pause, unpause, vcpus}, in_shadow, fault);
}

bool XenStoppable::prepare(bool logged, Fault* fault) {
  return read_policies(*xen_, domid_, &state_, fault) && (!logged || shared_.prepare(fault));
}

bool XenStoppable::stop(Fault* fault) {
  return pause_domain(*xen_, domid_, memory_.get(), &in_shadow_, fault);
}

bool XenStoppable::read_log(uint64_t nr_pfns, std::vector<uint8_t>* log, Fault* fault) {
  if (!log_dirty_read(*xen_, domid_, nr_pfns, {false, true}, log, fault) ||
      !shared_.mark(log->data(), nr_pfns, fault))
    return false;
  for (const uint64_t pfn : event_pages_)
    if (pfn < nr_pfns) (*log)[pfn / 8] |= uint8_t(1 << pfn % 8);
  return true;
}

bool XenStoppable::read_registers(Fault* fault) {
  return xen::read_registers(xen_, domid_, &state_, fault);
}

}  // namespace dormouse::xen
