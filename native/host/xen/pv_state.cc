#include "host/xen/pv_state.h"

#include <cerrno>
#include <cstddef>
#include <cstring>

#include "host/host.h"

namespace dormouse::xen {
namespace {

bool damaged(Fault* fault, const std::string& what) { return fault->raise("IMAGE_DAMAGED", what); }

bool set_basic(const Handles& xen, uint32_t domid, const VcpuBlobs& vcpu, Fault* fault) {
  vcpu_guest_context_any_t context = {};
  if (vcpu.basic.size() != sizeof context.x64)
    return damaged(fault, "a vCPU context of a wrong size");
  std::memcpy(&context, vcpu.basic.data(), vcpu.basic.size());
  context.x64.flags |= VGCF_online;
  return xc_vcpu_setcontext(xen.xc(), domid, vcpu.id, &context) == 0 ||
         raise_errno(fault, "setvcpucontext", domid);
}

bool set_extended(const Handles& xen, uint32_t domid, const VcpuBlobs& vcpu, Fault* fault) {
  if (vcpu.extended.empty()) return true;
  xen_domctl op = {};
  if (vcpu.extended.size() > sizeof op.u)
    return damaged(fault, "an extended vCPU context of a wrong size");
  std::memcpy(&op.u, vcpu.extended.data(), vcpu.extended.size());
  op.u.ext_vcpucontext.vcpu = vcpu.id;
  return domctl(xen, domid, XEN_DOMCTL_set_ext_vcpucontext, &op) == 0 ||
         raise_errno(fault, "set_ext_vcpucontext", domid);
}

bool set_xsave(const Handles& xen, uint32_t domid, const VcpuBlobs& vcpu, Fault* fault) {
  if (vcpu.xsave.empty()) return true;
  HypercallBuffer buffer(xen, vcpu.xsave.size());
  if (!buffer.data()) return raise_errno(fault, "hypercall buffer", domid);
  std::memcpy(buffer.data(), vcpu.xsave.data(), vcpu.xsave.size());
  xen_domctl op = {};
  op.u.vcpuextstate.vcpu = vcpu.id;
  op.u.vcpuextstate.size = vcpu.xsave.size();
  set_xen_guest_handle_raw(op.u.vcpuextstate.buffer, buffer.as<uint64_t>());
  return domctl(xen, domid, XEN_DOMCTL_setvcpuextstate, &op) == 0 ||
         raise_errno(fault, "setvcpuextstate", domid);
}

bool set_msrs(const Handles& xen, uint32_t domid, const VcpuBlobs& vcpu, Fault* fault) {
  if (vcpu.msrs.empty()) return true;
  if (vcpu.msrs.size() % sizeof(xen_domctl_vcpu_msr_t) != 0)
    return damaged(fault, "vCPU MSRs of a wrong size");
  HypercallBuffer buffer(xen, vcpu.msrs.size());
  if (!buffer.data()) return raise_errno(fault, "hypercall buffer", domid);
  std::memcpy(buffer.data(), vcpu.msrs.data(), vcpu.msrs.size());
  xen_domctl op = {};
  op.u.vcpu_msrs.vcpu = vcpu.id;
  op.u.vcpu_msrs.msr_count = uint32_t(vcpu.msrs.size() / sizeof(xen_domctl_vcpu_msr_t));
  set_xen_guest_handle_raw(op.u.vcpu_msrs.msrs, buffer.as<xen_domctl_vcpu_msr_t>());
  return domctl(xen, domid, XEN_DOMCTL_set_vcpu_msrs, &op) == 0 ||
         raise_errno(fault, "set_vcpu_msrs", domid);
}

}  // namespace

bool set_pv_vcpu(const Handles& xen, uint32_t domid, const VcpuBlobs& vcpu, Fault* fault) {
  return set_basic(xen, domid, vcpu, fault) && set_extended(xen, domid, vcpu, fault) &&
         set_xsave(xen, domid, vcpu, fault) && set_msrs(xen, domid, vcpu, fault);
}

bool set_shared_info(const std::shared_ptr<Handles>& xen, uint32_t domid, const Bytes& from,
                     SharedInfoParts parts, Fault* fault) {
  constexpr size_t kClock = offsetof(shared_info_t, wc_version);
  constexpr size_t kArch = offsetof(shared_info_t, arch);
  if (from.size() != host::kPageSize) return damaged(fault, "shared info of a wrong size");
  xc_domaininfo_t info;
  if (!domain_info(*xen, domid, &info, fault)) return false;
  const xen_pfn_t list = info.shared_info_frame;
  int error = 0;
  ForeignPages page;
  if (!page.map(xen, domid, &list, 1, &error, true) || error != 0) {
    if (error) errno = error < 0 ? -error : error;
    return raise_errno(fault, "mapping shared info", domid);
  }
  std::memcpy(page.writable_data(), from.data(), kClock);
  if (parts.arch)
    std::memcpy(page.writable_data() + kArch, from.data() + kArch, sizeof(arch_shared_info_t));
  return true;
}

bool pin_table(const Handles& xen, uint32_t domid, const TableToPin& table, uint64_t frame,
               Fault* fault) {
  mmuext_op op = {};
  op.cmd = MMUEXT_PIN_L1_TABLE + table.level - 1;
  op.arg1.mfn = frame;
  // One at a time: of a batch Xen does not say which one it refused.
  if (xc_mmuext_op(xen.xc(), &op, 1, domid) == 0) return true;
  fault->pfn = table.pfn;
  fault->sys_errno = errno;
  return fault->raise("PAGE_TABLE_INVALID",
                      "Xen refuses the page table of level " + std::to_string(table.level) +
                          " at pfn " + std::to_string(table.pfn) + ": " + std::strerror(errno));
}

}  // namespace dormouse::xen
