#include "host/xen/shared_pages.h"

#include <cerrno>
#include <cstring>

#include "host/host.h"
#include "host/xen/machine_map.h"

namespace dormouse::xen {
namespace {

// More frames than this are not believed: 16 million grants.
constexpr uint32_t kGrantFramesCap = 1u << 15;

struct Marker {
  uint8_t* bitmap;
  uint64_t nr_pfns;
  std::shared_ptr<MachineMap> machine;  // of a PV domain, whose grants name machine frames

  void pfn(uint64_t pfn) const {
    if (pfn < nr_pfns) bitmap[pfn / 8] |= uint8_t(1 << pfn % 8);
  }
  void granted(uint64_t frame) const {
    if (!machine)
      pfn(frame);
    else if (frame < machine->frames())
      pfn(machine->table()[frame]);
  }
};

bool grant_op(const Handles& xen, uint32_t domid, int cmd, void* op, size_t bytes, Fault* fault) {
  return xc_gnttab_op(xen.xc(), cmd, op, int(bytes), 1) == 0 ||
         raise_errno(fault, "reading the grant table", domid);
}

bool grant_failed(uint32_t domid, Fault* fault) {
  errno = EINVAL;
  return raise_errno(fault, "reading the grant table", domid);
}

bool may_be_written(uint16_t flags) {
  return (flags & GTF_type_mask) == GTF_permit_access && !(flags & GTF_readonly);
}

// Version 1 says in the entry whether it is mapped to be written; version 2 keeps that elsewhere.
void mark_v1(const Marker& mark, const grant_entry_v1* entries) {
  for (size_t i = 0; i < host::kPageSize / sizeof *entries; ++i)
    if (may_be_written(entries[i].flags) && (entries[i].flags & GTF_writing))
      mark.granted(entries[i].frame);
}

void mark_v2(const Marker& mark, const grant_entry_v2* entries) {
  for (size_t i = 0; i < host::kPageSize / sizeof *entries; ++i)
    if (may_be_written(entries[i].hdr.flags)) mark.granted(entries[i].full_page.frame);
}

// The frames of the grant table itself: pfns where the domain is translated, all ones where it has
// not mapped one (and can have granted nothing in it).
bool grant_frames(const Handles& xen, uint32_t domid, std::vector<xen_pfn_t>* frames,
                  Fault* fault) {
  gnttab_query_size size = {};
  size.dom = domid_t(domid);
  if (!grant_op(xen, domid, GNTTABOP_query_size, &size, sizeof size, fault)) return false;
  if (size.status != GNTST_okay || size.nr_frames > kGrantFramesCap)
    return grant_failed(domid, fault);
  frames->resize(size.nr_frames);
  if (frames->empty()) return true;
  HypercallBuffer list(xen, frames->size() * sizeof(xen_pfn_t));
  if (!list.data()) return raise_errno(fault, "hypercall buffer", domid);
  gnttab_setup_table table = {};
  table.dom = domid_t(domid);
  table.nr_frames = size.nr_frames;
  set_xen_guest_handle_raw(table.frame_list, list.as<xen_pfn_t>());
  if (!grant_op(xen, domid, GNTTABOP_setup_table, &table, sizeof table, fault)) return false;
  if (table.status != GNTST_okay) return grant_failed(domid, fault);
  std::memcpy(frames->data(), list.data(), frames->size() * sizeof(xen_pfn_t));
  return true;
}

bool mark_grants(const std::shared_ptr<Handles>& xen, uint32_t domid, const Marker& mark,
                 Fault* fault) {
  std::vector<xen_pfn_t> frames;
  if (!grant_frames(*xen, domid, &frames, fault)) return false;
  if (frames.empty()) return true;
  const int version = xc_gnttab_get_version(xen->xc(), domid);
  if (version < 0) return raise_errno(fault, "reading the grant table", domid);
  std::vector<int> errors(frames.size());
  ForeignPages table;
  if (!table.map(xen, domid, frames.data(), frames.size(), errors.data()))
    return raise_errno(fault, "mapping the grant table", domid);
  for (size_t i = 0; i < frames.size(); ++i) {
    if (errors[i] != 0) continue;
    const uint8_t* page = table.data() + i * host::kPageSize;
    if (!mark.machine) mark.pfn(frames[i]);
    if (version == 1)
      mark_v1(mark, reinterpret_cast<const grant_entry_v1*>(page));
    else
      mark_v2(mark, reinterpret_cast<const grant_entry_v2*>(page));
  }
  return true;
}

// The rings may be mapped past the grant table.
bool mark_rings(const Handles& xen, uint32_t domid, const Marker& mark, Fault* fault) {
  for (const uint32_t index : {HVM_PARAM_STORE_PFN, HVM_PARAM_CONSOLE_PFN}) {
    uint64_t pfn = 0;
    if (xc_hvm_param_get(xen.xc(), domid, index, &pfn) != 0)
      return raise_errno(fault, "hvm_get_param", domid);
    if (pfn != 0) mark.pfn(pfn);
  }
  return true;
}

}  // namespace

bool mark_shared_pages(const std::shared_ptr<Handles>& xen, uint32_t domid, uint8_t* bitmap,
                       uint64_t nr_pfns, Fault* fault) {
  xc_domaininfo_t info;
  if (!domain_info(*xen, domid, &info, fault)) return false;
  Marker mark{bitmap, nr_pfns, nullptr};
  if (is_hvm(info)) {
    mark.pfn(info.shared_info_frame);
    if (!mark_rings(*xen, domid, mark, fault)) return false;
  } else {
    mark.machine = MachineMap::get(xen, fault);
    if (!mark.machine) return false;
  }
  return mark_grants(xen, domid, mark, fault);
}

}  // namespace dormouse::xen
