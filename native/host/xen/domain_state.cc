#include "host/xen/domain_state.h"

#include <cerrno>
#include <cstring>

#include "host/host.h"

namespace dormouse::xen {
namespace {

// Sizes the hypervisor asks for are believed up to here.
constexpr uint64_t kBlobCap = 16ull << 20;

template <typename T>
Bytes bytes_of(const T& value, size_t n = sizeof(T)) {
  const auto* from = reinterpret_cast<const uint8_t*>(&value);
  return Bytes(from, from + n);
}

bool too_large(Fault* fault, const char* what) {
  return fault->raise("INTERNAL", std::string(what) + ": the hypervisor names an absurd size");
}

bool read_basic(const Handles& xen, uint32_t domid, uint32_t vcpu, Bytes* out, Fault* fault) {
  vcpu_guest_context_any_t context;
  if (xc_vcpu_getcontext(xen.xc(), domid, vcpu, &context) != 0)
    return raise_errno(fault, "getvcpucontext", domid);
  *out = bytes_of(context.c);
  return true;
}

bool read_extended(const Handles& xen, uint32_t domid, uint32_t vcpu, Bytes* out, Fault* fault) {
  xen_domctl op = {};
  op.u.ext_vcpucontext.vcpu = vcpu;
  if (domctl(xen, domid, XEN_DOMCTL_get_ext_vcpucontext, &op) != 0)
    return raise_errno(fault, "get_ext_vcpucontext", domid);
  *out = bytes_of(op.u.ext_vcpucontext);
  return true;
}

bool read_xsave(const Handles& xen, uint32_t domid, uint32_t vcpu, Bytes* out, Fault* fault) {
  xen_domctl op = {};
  op.u.vcpuextstate.vcpu = vcpu;
  if (domctl(xen, domid, XEN_DOMCTL_getvcpuextstate, &op) != 0)
    return raise_errno(fault, "getvcpuextstate", domid);
  const uint64_t size = op.u.vcpuextstate.size;
  if (size == 0) return true;
  if (size > kBlobCap) return too_large(fault, "getvcpuextstate");
  HypercallBuffer buffer(xen, size);
  if (!buffer.data()) return raise_errno(fault, "hypercall buffer", domid);
  op.u.vcpuextstate.vcpu = vcpu;
  set_xen_guest_handle_raw(op.u.vcpuextstate.buffer, buffer.as<uint64_t>());
  if (domctl(xen, domid, XEN_DOMCTL_getvcpuextstate, &op) != 0)
    return raise_errno(fault, "getvcpuextstate", domid);
  out->assign(buffer.as<uint8_t>(), buffer.as<uint8_t>() + std::min(size, op.u.vcpuextstate.size));
  return true;
}

bool read_msrs(const Handles& xen, uint32_t domid, uint32_t vcpu, Bytes* out, Fault* fault) {
  xen_domctl op = {};
  op.u.vcpu_msrs.vcpu = vcpu;
  if (domctl(xen, domid, XEN_DOMCTL_get_vcpu_msrs, &op) != 0)
    return raise_errno(fault, "get_vcpu_msrs", domid);
  const uint64_t size = op.u.vcpu_msrs.msr_count * sizeof(xen_domctl_vcpu_msr_t);
  if (size == 0) return true;
  if (size > kBlobCap) return too_large(fault, "get_vcpu_msrs");
  HypercallBuffer buffer(xen, size);
  if (!buffer.data()) return raise_errno(fault, "hypercall buffer", domid);
  op.u.vcpu_msrs.vcpu = vcpu;
  set_xen_guest_handle_raw(op.u.vcpu_msrs.msrs, buffer.as<xen_domctl_vcpu_msr_t>());
  if (domctl(xen, domid, XEN_DOMCTL_get_vcpu_msrs, &op) != 0)
    return raise_errno(fault, "get_vcpu_msrs", domid);
  const uint64_t got = op.u.vcpu_msrs.msr_count * sizeof(xen_domctl_vcpu_msr_t);
  out->assign(buffer.as<uint8_t>(), buffer.as<uint8_t>() + std::min(size, got));
  return true;
}

bool read_vcpus(const Handles& xen, uint32_t domid, uint32_t last, StateBlobs* state,
                Fault* fault) {
  for (uint32_t id = 0; id <= last; ++id) {
    xc_vcpuinfo_t info;
    if (xc_vcpu_getinfo(xen.xc(), domid, id, &info) != 0) {
      if (errno == ESRCH) continue;
      return raise_errno(fault, "getvcpuinfo", domid);
    }
    if (!info.online) continue;
    VcpuBlobs vcpu;
    vcpu.id = id;
    if (!read_basic(xen, domid, id, &vcpu.basic, fault) ||
        !read_extended(xen, domid, id, &vcpu.extended, fault) ||
        !read_xsave(xen, domid, id, &vcpu.xsave, fault) ||
        !read_msrs(xen, domid, id, &vcpu.msrs, fault))
      return false;
    state->vcpus.push_back(std::move(vcpu));
  }
  return true;
}

bool read_shared_info(const std::shared_ptr<Handles>& xen, const xc_domaininfo_t& info, Bytes* out,
                      Fault* fault) {
  const xen_pfn_t frame = info.shared_info_frame;
  int error = 0;
  ForeignPages page;
  if (!page.map(xen, info.domain, &frame, 1, &error) || error != 0) {
    if (error) errno = error < 0 ? -error : error;
    return raise_errno(fault, "mapping shared info", info.domain);
  }
  out->assign(page.data(), page.data() + host::kPageSize);
  return true;
}

struct TscInfo {
  uint32_t mode, khz;
  uint64_t nsec;
  uint32_t incarnation, reserved;
};
static_assert(sizeof(TscInfo) == 24, "X86_TSC_INFO");

bool read_tsc(const Handles& xen, uint32_t domid, Bytes* out, Fault* fault) {
  TscInfo tsc = {};
  if (xc_domain_get_tsc_info(xen.xc(), domid, &tsc.mode, &tsc.nsec, &tsc.khz, &tsc.incarnation) !=
      0)
    return raise_errno(fault, "gettscinfo", domid);
  *out = bytes_of(tsc);
  return true;
}

struct PolicyDeleter {
  void operator()(xc_cpu_policy_t* policy) const { xc_cpu_policy_destroy(policy); }
};

using Policy = std::unique_ptr<xc_cpu_policy_t, PolicyDeleter>;

bool serialise(const Handles& xen, const Policy& policy, Bytes* cpuid, Bytes* msr, uint32_t domid,
               Fault* fault) {
  uint32_t n_leaves = 0, n_msrs = 0;
  if (xc_cpu_policy_get_size(xen.xc(), &n_leaves, &n_msrs) != 0)
    return raise_errno(fault, "get_cpu_policy", domid);
  std::vector<xen_cpuid_leaf_t> leaves(n_leaves);
  std::vector<xen_msr_entry_t> msrs(n_msrs);
  if (xc_cpu_policy_serialise(xen.xc(), policy.get(), leaves.data(), &n_leaves, msrs.data(),
                              &n_msrs) != 0)
    return raise_errno(fault, "serialising the cpu policy", domid);
  const auto* leaf_bytes = reinterpret_cast<const uint8_t*>(leaves.data());
  const auto* msr_bytes = reinterpret_cast<const uint8_t*>(msrs.data());
  cpuid->assign(leaf_bytes, leaf_bytes + n_leaves * sizeof(xen_cpuid_leaf_t));
  msr->assign(msr_bytes, msr_bytes + n_msrs * sizeof(xen_msr_entry_t));
  return true;
}

bool read_hvm_context(const Handles& xen, uint32_t domid, Bytes* out, Fault* fault) {
  const int size = xc_domain_hvm_getcontext(xen.xc(), domid, nullptr, 0);
  if (size < 0) return raise_errno(fault, "gethvmcontext", domid);
  if (uint64_t(size) > kBlobCap) return too_large(fault, "gethvmcontext");
  out->resize(size);
  const int got = xc_domain_hvm_getcontext(xen.xc(), domid, out->data(), size);
  if (got < 0) return raise_errno(fault, "gethvmcontext", domid);
  out->resize(got);
  return true;
}

// Those that travel, in the stream's order.
constexpr uint32_t kParams[] = {
    HVM_PARAM_STORE_PFN,
    HVM_PARAM_IOREQ_PFN,
    HVM_PARAM_BUFIOREQ_PFN,
    HVM_PARAM_PAGING_RING_PFN,
    HVM_PARAM_MONITOR_RING_PFN,
    HVM_PARAM_SHARING_RING_PFN,
    HVM_PARAM_VM86_TSS_SIZED,
    HVM_PARAM_CONSOLE_PFN,
    HVM_PARAM_ACPI_IOPORTS_LOCATION,
    HVM_PARAM_VIRIDIAN,
    HVM_PARAM_IDENT_PT,
    HVM_PARAM_VM_GENERATION_ID_ADDR,
    HVM_PARAM_IOREQ_SERVER_PFN,
    HVM_PARAM_NR_IOREQ_SERVER_PAGES,
    HVM_PARAM_X87_FIP_WIDTH,
    HVM_PARAM_MCA_CAP,
};

bool read_hvm_params(const Handles& xen, uint32_t domid, Bytes* out, Fault* fault) {
  std::vector<uint64_t> pairs;
  for (const uint32_t index : kParams) {
    uint64_t value = 0;
    if (xc_hvm_param_get(xen.xc(), domid, index, &value) != 0)
      return raise_errno(fault, "hvm_get_param", domid);
    if (value != 0) pairs.insert(pairs.end(), {index, value});
  }
  const uint32_t head[2] = {uint32_t(pairs.size() / 2), 0};
  *out = bytes_of(head);
  const auto* from = reinterpret_cast<const uint8_t*>(pairs.data());
  out->insert(out->end(), from, from + pairs.size() * sizeof(uint64_t));
  return true;
}

}  // namespace

bool read_policies(const Handles& xen, uint32_t domid, StateBlobs* state, Fault* fault) {
  Policy policy(xc_cpu_policy_init());
  if (!policy || xc_cpu_policy_get_domain(xen.xc(), domid, policy.get()) != 0)
    return raise_errno(fault, "get_cpu_policy", domid);
  return serialise(xen, policy, &state->cpuid_policy, &state->msr_policy, domid, fault);
}

bool read_registers(const std::shared_ptr<Handles>& xen, uint32_t domid, StateBlobs* state,
                    Fault* fault) {
  xc_domaininfo_t info;
  if (!domain_info(*xen, domid, &info, fault) || !read_tsc(*xen, domid, &state->tsc_info, fault))
    return false;
  if (is_hvm(info))
    return read_hvm_context(*xen, domid, &state->hvm_context, fault) &&
           read_hvm_params(*xen, domid, &state->hvm_params, fault);
  return read_shared_info(xen, info, &state->shared_info, fault) &&
         read_vcpus(*xen, domid, info.max_vcpu_id, state, fault);
}

bool read_state(const std::shared_ptr<Handles>& xen, uint32_t domid, StateBlobs* state,
                Fault* fault) {
  return read_policies(*xen, domid, state, fault) && read_registers(xen, domid, state, fault);
}

bool read_guest_policy(const Handles& xen, bool hvm, Bytes* cpuid, Bytes* msrs, Fault* fault) {
  Policy policy(xc_cpu_policy_init());
  const unsigned index = hvm ? XEN_SYSCTL_cpu_policy_hvm_max : XEN_SYSCTL_cpu_policy_pv_max;
  if (!policy || xc_cpu_policy_get_system(xen.xc(), index, policy.get()) != 0)
    return raise_errno(fault, "the policy of guests", DOMID_XEN);
  return serialise(xen, policy, cpuid, msrs, DOMID_XEN, fault);
}

}  // namespace dormouse::xen
