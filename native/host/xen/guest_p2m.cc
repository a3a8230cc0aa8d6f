#include "host/xen/guest_p2m.h"

#include <cerrno>
#include <cstddef>
#include <cstring>

#include "host/host.h"

namespace dormouse::xen {
namespace {

constexpr size_t kArchOffset = offsetof(shared_info_t, arch);

class MappingReader : public FrameReader {
 public:
  MappingReader(std::shared_ptr<Handles> xen, uint32_t domid)
      : xen_(std::move(xen)), domid_(domid) {}
  bool read(uint64_t mfn, uint64_t out[512], Fault* fault) override {
    const xen_pfn_t frame = mfn;
    int error = 0;
    ForeignPages page;
    if (!page.map(xen_, domid_, &frame, 1, &error) || error != 0)
      return fault->raise(
          "GUEST_MEMORY_UNREADABLE",
          "a frame of the guest's p2m is not the guest's (mfn " + std::to_string(mfn) + ")");
    std::memcpy(out, page.data(), 4096);
    return true;
  }

 private:
  std::shared_ptr<Handles> xen_;
  uint32_t domid_;
};

}  // namespace

std::unique_ptr<GuestP2m> GuestP2m::open(std::shared_ptr<Handles> xen, const xc_domaininfo_t& info,
                                         Fault* fault) {
  std::unique_ptr<GuestP2m> out(new GuestP2m);
  out->xen_ = xen;
  out->domid_ = info.domain;
  // Room for a hole below 4 GiB; what a hostile guest can make us allocate follows its size.
  out->nr_pfns_cap_ = 4 * info.max_pages + (4ull << 20);
  unsigned width = 0;
  if (xc_domain_get_guest_width(xen->xc(), info.domain, &width) != 0) {
    raise_errno(fault, "get_address_size", info.domain);
    return nullptr;
  }
  if (width != 8) {
    fault->raise("HOST_LACKS", "32-bit PV guests are not supported");
    return nullptr;
  }
  out->machine_ = MachineMap::get(xen, fault);
  if (!out->machine_) return nullptr;
  const xen_pfn_t frame = info.shared_info_frame;
  int error = 0;
  if (!out->shared_info_.map(xen, info.domain, &frame, 1, &error) || error != 0) {
    if (error) errno = error < 0 ? -error : error;
    raise_errno(fault, "mapping shared info", info.domain);
    return nullptr;
  }
  return out->discover(fault) ? std::move(out) : nullptr;
}

P2mAnchor GuestP2m::anchor() const {
  arch_shared_info_t arch;
  std::memcpy(&arch, shared_info_.data() + kArchOffset, sizeof arch);
  P2mAnchor out;
  out.max_pfn = arch.max_pfn;
  out.frame_list_list = arch.pfn_to_mfn_frame_list_list;
  out.p2m_cr3 = arch.p2m_cr3;
  out.p2m_vaddr = arch.p2m_vaddr;
  out.generation = arch.p2m_generation;
  return out;
}

bool GuestP2m::discover(Fault* fault) {
  MappingReader reader(xen_, domid_);
  const P2mLimits limits{machine_->frames() - 1, nr_pfns_cap_};
  // The guest counts up before and after it moves a leaf: an odd or changed count means that this
  // reading may be half of the old list and half of the new.
  for (int tries = 0; tries < 100; ++tries) {
    const P2mAnchor before = anchor();
    P2mLeaves leaves;
    // What was found before stays, leaves and pages alike, until all of the new one is there.
    ForeignPages pages;
    *fault = Fault();
    const bool found = find_p2m_leaves(before, limits, reader, &leaves, fault) &&
                       map_leaves(leaves, &pages, fault);
    const P2mAnchor after = anchor();
    if ((before.generation & 1) != 0 || before.generation != after.generation ||
        before.max_pfn != after.max_pfn)
      continue;
    if (!found) return false;
    leaves_ = std::move(leaves);
    leaf_pages_ = std::move(pages);
    found_at_ = before;
    return true;
  }
  return fault->raise("GUEST_MEMORY_UNREADABLE", "the guest keeps moving its p2m");
}

bool GuestP2m::map_leaves(const P2mLeaves& leaves, ForeignPages* pages, Fault* fault) {
  std::vector<xen_pfn_t> frames(leaves.mfns.begin(), leaves.mfns.end());
  std::vector<int> errors(frames.size());
  if (!pages->map(xen_, domid_, frames.data(), frames.size(), errors.data()))
    return raise_errno(fault, "mapping the p2m", domid_);
  for (size_t i = 0; i < errors.size(); ++i)
    if (errors[i] != 0)
      return fault->raise("GUEST_MEMORY_UNREADABLE",
                          "leaf " + std::to_string(i) + " of the guest's p2m cannot be mapped");
  return true;
}

// A guest that keeps the tree of frame lists alone (Linux before 4.3) counts nothing: it is looked
// through again.
bool GuestP2m::refresh(bool* moved, Fault* fault) {
  const P2mAnchor now = anchor();
  *moved = now.p2m_cr3 == 0 || now.generation != found_at_.generation ||
           now.max_pfn != found_at_.max_pfn || now.p2m_cr3 != found_at_.p2m_cr3 ||
           now.p2m_vaddr != found_at_.p2m_vaddr;
  if (!*moved) return true;
  return discover(fault);
}

uint64_t GuestP2m::frame(uint64_t pfn) const {
  const uint64_t* entries = reinterpret_cast<const uint64_t*>(leaf_pages_.data());
  const uint64_t entry = __atomic_load_n(entries + pfn, __ATOMIC_RELAXED);
  // Flags that Linux keeps in the top bits mark frames that are not the guest's own.
  return entry < machine_->frames() ? entry : host::kNoMfn;
}

bool GuestP2m::leaf_pfns(std::vector<uint64_t>* pfns, Fault* fault) const {
  pfns->clear();
  for (const uint64_t mfn : leaves_.mfns) {
    const uint64_t pfn = machine_->table()[mfn];
    if (pfn >= nr_pfns() || frame(pfn) != mfn)
      return fault->raise("GUEST_MEMORY_UNREADABLE",
                          "a leaf of the guest's p2m is not in that p2m");
    pfns->push_back(pfn);
  }
  return true;
}

}  // namespace dormouse::xen
