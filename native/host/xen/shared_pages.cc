#include "host/xen/shared_pages.h"

#include <cerrno>
#include <cstring>

#include "host/host.h"

namespace dormouse::xen {
namespace {

// More frames than this are not believed: 16 million grants.
constexpr uint32_t kGrantFramesCap = 1u << 15;

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

}  // namespace

struct SharedPages::Marker {
  uint8_t* bitmap;
  uint64_t nr_pfns;
  const MachineMap* machine;

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

namespace {

// Version 1 says in the entry whether it is mapped to be written; version 2 keeps that elsewhere.
template <typename Marker>
void mark_v1(const Marker& mark, const grant_entry_v1* entries) {
  for (size_t i = 0; i < host::kPageSize / sizeof *entries; ++i)
    if (may_be_written(entries[i].flags) && (entries[i].flags & GTF_writing))
      mark.granted(entries[i].frame);
}

template <typename Marker>
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

// The rings may be mapped past the grant table.
template <typename Marker>
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

// Of those that the domain has mapped itself: one that could not be mapped before may be there now.
bool SharedPages::has_all() const {
  for (size_t i = 0; i < frames_.size(); ++i)
    if (errors_[i] != 0 && frames_[i] != ~xen_pfn_t(0)) return false;
  return true;
}

bool SharedPages::map_grants(Fault* fault) {
  std::vector<xen_pfn_t> frames;
  if (!grant_frames(*xen_, domid_, &frames, fault)) return false;
  if (frames == frames_ && has_all()) return true;
  frames_.clear();
  table_.reset();
  errors_.assign(frames.size(), 0);
  if (!frames.empty() && !table_.map(xen_, domid_, frames.data(), frames.size(), errors_.data()))
    return raise_errno(fault, "mapping the grant table", domid_);
  frames_ = std::move(frames);
  return true;
}

bool SharedPages::mark_grants(const Marker& mark, Fault* fault) {
  if (!map_grants(fault)) return false;
  if (frames_.empty()) return true;
  const int version = xc_gnttab_get_version(xen_->xc(), domid_);
  if (version < 0) return raise_errno(fault, "reading the grant table", domid_);
  for (size_t i = 0; i < frames_.size(); ++i) {
    if (errors_[i] != 0) continue;
    const uint8_t* page = table_.data() + i * host::kPageSize;
    if (!mark.machine) mark.pfn(frames_[i]);
    if (version == 1)
      mark_v1(mark, reinterpret_cast<const grant_entry_v1*>(page));
    else
      mark_v2(mark, reinterpret_cast<const grant_entry_v2*>(page));
  }
  return true;
}

bool SharedPages::know_domain(xc_domaininfo_t* info, Fault* fault) {
  if (!domain_info(*xen_, domid_, info, fault)) return false;
  if (!is_hvm(*info) && !machine_) machine_ = MachineMap::get(xen_, fault);
  return is_hvm(*info) || machine_;
}

bool SharedPages::prepare(Fault* fault) {
  xc_domaininfo_t info;
  return know_domain(&info, fault) && map_grants(fault);
}

bool SharedPages::mark(uint8_t* bitmap, uint64_t nr_pfns, Fault* fault) {
  xc_domaininfo_t info;
  if (!know_domain(&info, fault)) return false;
  const Marker mark{bitmap, nr_pfns, machine_.get()};
  if (is_hvm(info)) {
    mark.pfn(info.shared_info_frame);
    if (!mark_rings(*xen_, domid_, mark, fault)) return false;
  }
  return mark_grants(mark, fault);
}

}  // namespace dormouse::xen
