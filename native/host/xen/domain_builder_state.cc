// The state half of DomainBuilder: policies, HVM context and parameters.
#include <cerrno>
#include <cstring>

#include "host/xen/domain_builder.h"
#include "host/xen/pv_state.h"

namespace dormouse::xen {
namespace {

bool damaged(Fault* fault, const std::string& what) { return fault->raise("IMAGE_DAMAGED", what); }

struct TscInfo {
  uint32_t mode, khz;
  uint64_t nsec;
  uint32_t incarnation, reserved;
};

bool set_tsc(const Handles& xen, uint32_t domid, const Bytes& body, Fault* fault) {
  if (body.empty()) return true;
  TscInfo tsc;
  if (body.size() != sizeof tsc) return damaged(fault, "TSC info of a wrong size");
  std::memcpy(&tsc, body.data(), sizeof tsc);
  return xc_domain_set_tsc_info(xen.xc(), domid, tsc.mode, tsc.nsec, tsc.khz, tsc.incarnation) ==
             0 ||
         raise_errno(fault, "settscinfo", domid);
}

template <typename T>
std::vector<T> entries_of(const Bytes& body) {
  std::vector<T> out(body.size() / sizeof(T));
  if (!out.empty()) std::memcpy(out.data(), body.data(), out.size() * sizeof(T));
  return out;
}

}  // namespace

bool DomainBuilder::set_policy(const Bytes& cpuid, const Bytes& msrs, Fault* fault) {
  if (cpuid.empty() && msrs.empty()) return true;
  auto leaves = entries_of<xen_cpuid_leaf_t>(cpuid);
  auto entries = entries_of<xen_msr_entry_t>(msrs);
  uint32_t bad_leaf = 0, bad_subleaf = 0, bad_msr = 0;
  if (xc_set_domain_cpu_policy(xen_->xc(), domid_, uint32_t(leaves.size()), leaves.data(),
                               uint32_t(entries.size()), entries.data(), &bad_leaf, &bad_subleaf,
                               &bad_msr) == 0)
    return true;
  char text[200];
  std::snprintf(text, sizeof text,
                "this host cannot give the guest the processor it had: CPUID leaf 0x%x.0x%x, MSR "
                "0x%x: %s",
                bad_leaf, bad_subleaf, bad_msr, std::strerror(errno));
  fault->sys_errno = errno;
  return fault->raise("IMAGE_INCOMPATIBLE", text);
}

bool DomainBuilder::set_width(uint32_t width, Fault* fault) {
  unsigned now = 0;
  if (xc_domain_get_guest_width(xen_->xc(), domid_, &now) != 0)
    return raise_errno(fault, "get_address_size", domid_);
  if (now == width) return true;
  xen_domctl op = {};
  op.u.address_size.size = width * 8;
  return domctl(*xen_, domid_, XEN_DOMCTL_set_address_size, &op) == 0 ||
         raise_errno(fault, "set_address_size", domid_);
}

bool DomainBuilder::shared_info_frame(uint64_t* frame, Fault* fault) const {
  xc_domaininfo_t info;
  if (!domain_info(*xen_, domid_, &info, fault)) return false;
  *frame = info.shared_info_frame;
  return true;
}

bool DomainBuilder::set_pv_state(const StateBlobs& state, Fault* fault) {
  unmap();
  if (!set_tsc(*xen_, domid_, state.tsc_info, fault) ||
      !set_shared_info(xen_, domid_, state.shared_info, {true}, fault))
    return false;
  for (const VcpuBlobs& vcpu : state.vcpus)
    if (!set_pv_vcpu(*xen_, domid_, vcpu, fault)) return false;
  return true;
}

bool DomainBuilder::set_param(uint64_t index, uint64_t value, RingFrames* rings, Fault* fault) {
  const bool is_ring = index == HVM_PARAM_CONSOLE_PFN || index == HVM_PARAM_STORE_PFN;
  if (index == HVM_PARAM_CONSOLE_PFN) rings->console = value;
  if (index == HVM_PARAM_STORE_PFN) rings->store = value;
  if (is_ring || index == HVM_PARAM_IOREQ_PFN || index == HVM_PARAM_BUFIOREQ_PFN)
    if (xc_clear_domain_page(xen_->xc(), domid_, value) != 0)
      return raise_errno(fault, "blanking a ring page", domid_);
  if (xc_hvm_param_set(xen_->xc(), domid_, uint32_t(index), value) == 0) return true;
  const std::string what = "hvm_set_param " + std::to_string(index);
  return raise_errno(fault, what.c_str(), domid_);
}

bool DomainBuilder::set_hvm_state(const StateBlobs& state, const RingPorts& ports,
                                  RingFrames* rings, Fault* fault) {
  unmap();
  const Bytes& params = state.hvm_params;
  if (params.size() < 8 || state.hvm_context.empty())
    return damaged(fault, "HVM parameters or context are missing");
  if (!set_tsc(*xen_, domid_, state.tsc_info, fault)) return false;
  uint32_t count = 0;
  std::memcpy(&count, params.data(), sizeof count);
  if (params.size() != 8 + uint64_t(count) * 16)
    return damaged(fault, "HVM parameters of a wrong size");
  for (uint32_t i = 0; i < count; ++i) {
    uint64_t pair[2];
    std::memcpy(pair, params.data() + 8 + uint64_t(i) * 16, sizeof pair);
    if (!set_param(pair[0], pair[1], rings, fault)) return false;
  }
  if (!set_param(HVM_PARAM_STORE_EVTCHN, ports.store, rings, fault) ||
      !set_param(HVM_PARAM_CONSOLE_EVTCHN, ports.console, rings, fault))
    return false;
  Bytes context = state.hvm_context;
  return xc_domain_hvm_setcontext(xen_->xc(), domid_, context.data(), uint32_t(context.size())) ==
             0 ||
         raise_errno(fault, "sethvmcontext", domid_);
}

bool DomainBuilder::seed_grants(const RingFrames& rings, const RingOwners& owners, Fault* fault) {
  return xc_dom_gnttab_seed(xen_->xc(), domid_, !pv_, rings.console, rings.store,
                            owners.console_domid, owners.store_domid) == 0 ||
         raise_errno(fault, "seeding the grant table", domid_);
}

}  // namespace dormouse::xen
