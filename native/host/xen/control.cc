#include "host/xen/control.h"

#include <cerrno>
#include <cstring>
#include <string>

#include "host/xen/other_saver.h"

namespace dormouse::xen {
namespace {

int shadow_op(const Handles& xen, uint32_t domid, uint32_t op, xen_domctl* call) {
  call->u.shadow_op.op = op;
  return domctl(xen, domid, XEN_DOMCTL_shadow_op, call);
}

int enable_log_dirty(const Handles& xen, uint32_t domid) {
  xen_domctl call = {};
  const int failed = shadow_op(xen, domid, XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY, &call);
  if (failed) return failed;
  // Ending it leaves the count of dirty pages as it is: without a bitmap only the count is reset.
  call = {};
  return shadow_op(xen, domid, XEN_DOMCTL_SHADOW_OP_CLEAN, &call);
}

// Its log would lose what ours takes of it, and would not notice that it ended.
bool refuse_other_saver(uint32_t domid, Fault* fault) {
  const int pid = other_saver(domid);
  if (!pid) return true;
  return fault->raise("LOCKED",
                      "another tool saves or migrates the domain: process " + std::to_string(pid));
}

uint64_t count_bits(const uint64_t* words, size_t count) {
  uint64_t bits = 0;
  for (size_t i = 0; i < count; i++) bits += static_cast<uint64_t>(__builtin_popcountll(words[i]));
  return bits;
}

}  // namespace

bool resume_in_place(const Handles& xen, uint32_t domid, Fault* fault) {
  return xc_domain_resume(xen.xc(), domid, 1) == 0 || raise_errno(fault, "resume", domid);
}

bool log_dirty_on(const Handles& xen, uint32_t domid, Fault* fault) {
  if (!refuse_other_saver(domid, fault)) return false;
  if (enable_log_dirty(xen, domid) == 0) return true;
  if (errno != EINVAL) return raise_errno(fault, "enabling log-dirty", domid);
  // What our own dead left on was ended before the lease was given.
  return fault->raise("LOCKED",
                      "the domain's dirty log is on: another tool uses it, or died at that; or the "
                      "domain has a device of the host's");
}

bool log_dirty_read(const Handles& xen, uint32_t domid, uint64_t nr_pfns, LogRead how,
                    std::vector<uint8_t>* bitmap, Fault* fault) {
  if (how.clean && !refuse_other_saver(domid, fault)) return false;
  const size_t bytes = (nr_pfns + 63) / 64 * 8;
  HypercallBuffer buffer(xen, bytes);
  if (!buffer.data()) return raise_errno(fault, "hypercall buffer", domid);
  std::memset(buffer.data(), 0, bytes);
  xen_domctl call = {};
  call.u.shadow_op.pages = nr_pfns;
  set_xen_guest_handle_raw(call.u.shadow_op.dirty_bitmap, buffer.as<uint8_t>());
  call.u.shadow_op.mode = how.last ? XEN_DOMCTL_SHADOW_LOGDIRTY_FINAL : 0;
  const uint32_t op = how.clean ? XEN_DOMCTL_SHADOW_OP_CLEAN : XEN_DOMCTL_SHADOW_OP_PEEK;
  if (shadow_op(xen, domid, op, &call) != 0)
    return raise_errno(fault, "reading the dirty bitmap", domid);
  bitmap->assign(buffer.as<uint8_t>(), buffer.as<uint8_t>() + (nr_pfns + 7) / 8);
  // Who ends the log and begins it anew, as libxc does, takes the bits but not the count.
  if (call.u.shadow_op.stats.dirty_count > count_bits(buffer.as<uint64_t>(), bytes / 8))
    return fault->raise("LOCKED", "another tool took pages from the dirty log of the domain");
  return true;
}

bool log_dirty_off(const Handles& xen, uint32_t domid, bool* was_on, Fault* fault) {
  if (!refuse_other_saver(domid, fault)) return false;
  // Reading and ending it succeed whether it is on or not; only enabling tells.
  if (was_on) *was_on = enable_log_dirty(xen, domid) != 0 && errno == EINVAL;
  xen_domctl call = {};
  if (shadow_op(xen, domid, XEN_DOMCTL_SHADOW_OP_OFF, &call) == 0 || errno == EINVAL) return true;
  return raise_errno(fault, "ending log-dirty", domid);
}

}  // namespace dormouse::xen
