#include "host/xen/domain_builder.h"

#include <cerrno>

namespace dormouse::xen {
namespace {

constexpr uint64_t kPopulateBatch = 4096;
// Above this a pfn space is not believed: 16 TiB.
constexpr uint64_t kNrPfnsCap = 1ull << 32;

// An errno of populating: EBUSY is the library's word for "fewer than asked".
bool raise_populate(Fault* fault, uint32_t domid) {
  if (errno == EBUSY || errno == EINVAL) errno = ENOMEM;
  return raise_errno(fault, "populating memory", domid);
}

}  // namespace

std::shared_ptr<DomainBuilder> DomainBuilder::open(std::shared_ptr<Handles> xen, uint32_t domid,
                                                   Fault* fault) {
  xc_domaininfo_t info;
  if (!domain_info(*xen, domid, &info, fault)) return nullptr;
  std::shared_ptr<DomainBuilder> out(new DomainBuilder(xen, domid));
  out->pv_ = !is_hvm(info);
  return out;
}

bool DomainBuilder::set_nr_pfns(uint64_t nr_pfns, Fault* fault) {
  if (nr_pfns > kNrPfnsCap || nr_pfns < frames_.size())
    return fault->raise("INTERNAL", "a pfn space of " + std::to_string(nr_pfns) + " pages");
  frames_.resize(nr_pfns, host::kNoMfn);
  return true;
}

bool DomainBuilder::populate(const uint64_t* pfns, uint64_t n, Fault* fault) {
  // Nobody is to map a frame that is listed only.
  std::lock_guard<std::mutex> hold(pages_.lock());
  std::vector<xen_pfn_t> batch;
  for (uint64_t i = 0; i < n; ++i) {
    if (pfns[i] >= frames_.size())
      return fault->raise("INTERNAL", "populating beyond the domain's pfns");
    if (frames_[pfns[i]] != host::kNoMfn) continue;
    frames_[pfns[i]] = pfns[i];  // listed; its frame comes with the batch
    batch.push_back(pfns[i]);
    if (batch.size() == kPopulateBatch && !populate_batch(&batch, fault)) return false;
  }
  return populate_batch(&batch, fault);
}

bool DomainBuilder::populate_batch(std::vector<xen_pfn_t>* batch, Fault* fault) {
  if (batch->empty()) return true;
  std::vector<xen_pfn_t> frames = *batch;
  if (xc_domain_populate_physmap_exact(xen_->xc(), domid_, frames.size(), 0, 0, frames.data()) != 0)
    return raise_populate(fault, domid_);
  for (size_t i = 0; i < batch->size(); ++i) {
    const uint64_t pfn = (*batch)[i];
    if (pv_) frames_[pfn] = frames[i];
    pages_.forget(pfn);
  }
  batch->clear();
  return true;
}

bool DomainBuilder::depopulate(const uint64_t* pfns, uint64_t n, Fault* fault) {
  std::vector<xen_pfn_t> list;
  for (uint64_t i = 0; i < n; ++i) {
    if (frame(pfns[i]) == host::kNoMfn) return fault->raise("INTERNAL", "freeing no frame");
    pages_.forget(pfns[i]);
    list.push_back(frames_[pfns[i]]);
    frames_[pfns[i]] = host::kNoMfn;
  }
  return xc_domain_decrease_reservation_exact(xen_->xc(), domid_, list.size(), 0, list.data()) ==
             0 ||
         raise_errno(fault, "giving memory back", domid_);
}

void DomainBuilder::unmap() { pages_.unmap(); }

bool DomainBuilder::query(uint64_t first, uint32_t n, uint64_t* entries, Fault* fault) {
  if (first > frames_.size() || n > frames_.size() - first)
    return fault->raise("INTERNAL", "query beyond the domain's pfns");
  for (uint32_t i = 0; i < n; ++i) {
    const uint64_t frame = frames_[first + i];
    const uint64_t type = frame == host::kNoMfn ? host::kXtab : host::kNotab;
    entries[i] = frame | type << 60;
  }
  return true;
}

bool DomainBuilder::copy_out(const uint64_t* pfns, const uint64_t*, uint32_t n, uint8_t* dst,
                             Fault* fault) {
  return pages_.copy_out(pfns, n, dst, fault);
}

bool DomainBuilder::copy_in(const uint64_t* pfns, uint32_t n, const uint8_t* src, Fault* fault) {
  return pages_.copy_in(pfns, n, src, fault);
}

bool DomainBuilder::pin(const std::vector<TableToPin>& tables, Fault* fault) {
  unmap();
  for (const TableToPin& table : tables)
    if (!pin_table(*xen_, domid_, table, frame(table.pfn), fault)) return false;
  return true;
}

}  // namespace dormouse::xen
