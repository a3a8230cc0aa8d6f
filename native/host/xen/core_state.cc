#include "host/xen/core_state.h"

#include <xen/version.h>

#include <cerrno>

#include "host/host.h"

namespace dormouse::xen {
namespace {

struct HypervisorNote {
  uint64_t major_version, minor_version;
  xen_extraversion_t extra_version;
  xen_compile_info_t compile_info;
  xen_capabilities_info_t capabilities;
  xen_changeset_info_t changeset;
  xen_platform_parameters_t platform_parameters;
  uint64_t page_size;
};
static_assert(sizeof(HypervisorNote) == 1280, "XEN_ELFNOTE_DUMPCORE_XEN_VERSION");

bool read_hypervisor(const Handles& xen, Bytes* out, Fault* fault) {
  HypervisorNote note = {};
  const int version = xc_version(xen.xc(), XENVER_version, nullptr);
  const int page_size = xc_version(xen.xc(), XENVER_pagesize, nullptr);
  if (version < 0 || page_size < 0 ||
      xc_version(xen.xc(), XENVER_extraversion, &note.extra_version) < 0 ||
      xc_version(xen.xc(), XENVER_compile_info, &note.compile_info) < 0 ||
      xc_version(xen.xc(), XENVER_capabilities, &note.capabilities) < 0 ||
      xc_version(xen.xc(), XENVER_changeset, &note.changeset) < 0 ||
      xc_version(xen.xc(), XENVER_platform_parameters, &note.platform_parameters) < 0)
    return raise_errno(fault, "the hypervisor's version", DOMID_XEN);
  note.major_version = uint32_t(version) >> 16;
  note.minor_version = uint32_t(version) & 0xFFFF;
  note.page_size = uint64_t(page_size);
  const auto* from = reinterpret_cast<const uint8_t*>(&note);
  out->assign(from, from + sizeof note);
  return true;
}

bool read_contexts(const Handles& xen, const xc_domaininfo_t& info, std::vector<Bytes>* out,
                   Fault* fault) {
  for (uint32_t id = 0; id <= info.max_vcpu_id; ++id) {
    vcpu_guest_context_any_t context = {};
    if (xc_vcpu_getcontext(xen.xc(), info.domain, id, &context) != 0) {
      // There is no such vCPU, or it was never set up.
      if (errno == ESRCH || errno == ENODATA || errno == ENOENT) continue;
      return raise_errno(fault, "getvcpucontext", info.domain);
    }
    const auto* from = reinterpret_cast<const uint8_t*>(&context);
    out->emplace_back(from, from + sizeof context);
  }
  if (!out->empty()) return true;
  return fault->raise("DOMAIN_WRONG_STATE", "the domain has no vCPU that was ever set up");
}

}  // namespace

bool read_core_state(const std::shared_ptr<Handles>& xen, uint32_t domid, CoreBlobs* state,
                     Fault* fault) {
  xc_domaininfo_t info;
  if (!domain_info(*xen, domid, &info, fault) ||
      !read_hypervisor(*xen, &state->hypervisor, fault) ||
      !read_contexts(*xen, info, &state->contexts, fault))
    return false;
  const xen_pfn_t frame = info.shared_info_frame;
  int error = 0;
  ForeignPages page;
  if (page.map(xen, domid, &frame, 1, &error) && error == 0)
    state->shared_info.assign(page.data(), page.data() + host::kPageSize);
  else if (!is_hvm(info))
    return raise_errno(fault, "mapping shared info", domid);
  return true;
}

}  // namespace dormouse::xen
