#include "host/xen/xen_stoppable.h"

#include "host/xen/control.h"
#include "host/xen/stopped_vcpus.h"

namespace dormouse::xen {

bool XenPause::begin(XenMemory* memory, const Rests& rests, std::vector<uint32_t>* in_shadow,
                     Fault* fault) {
  const auto pause = [&](Fault* why) {
    if (xc_domain_pause(xen_->xc(), domid_) != 0) return raise_errno(why, "pause", domid_);
    *stands_ = 1;
    return true;
  };
  // A PV guest has no such shadow: Xen itself brings its events.
  const bool visible = memory && !memory->p2m();
  const auto vcpus = [&](std::vector<StoppedVcpu>* out, Fault* why) {
    return !visible || stopped_vcpus(*xen_, domid_, *memory, out, why);
  };
  return pause_outside_shadow({pause, [this](Fault* why) { return end(why); }, vcpus, rests},
                              in_shadow, fault);
}

bool XenPause::end(Fault* fault) {
  if (xc_domain_unpause(xen_->xc(), domid_) != 0) return raise_errno(fault, "unpause", domid_);
  *stands_ = 0;
  return true;
}

bool XenStoppable::stop(Fault* fault) {
  const auto rests = [&](bool* at_rest, Fault* why) {
    bool soon = false;
    if (!links_.look(&soon, why)) return false;
    *at_rest = !soon;
    return true;
  };
  return pause_.begin(memory_.get(), rests, &in_shadow_, fault);
}

bool XenStoppable::prepare(bool logged, Fault* fault) {
  links_.prepare();
  return read_policies(*xen_, domid_, &state_, fault) && (!logged || shared_.prepare(fault));
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

bool XenStoppable::captured(Fault*) {
  LinksBlobs links;
  links_.read(&links);
  return captured_(state_, links);
}

}  // namespace dormouse::xen
