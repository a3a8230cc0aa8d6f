#include "host/xen/xen_memory.h"

namespace dormouse::xen {
namespace {

constexpr uint32_t kTypeBatch = 1024;  // Xen's own limit

class XenMapping : public host::Mapping {
 public:
  const uint8_t* data() const override { return pages.data(); }
  ForeignPages pages;
};

}  // namespace

std::unique_ptr<XenFrames> XenFrames::open(std::shared_ptr<Handles> xen, uint32_t domid,
                                           Fault* fault) {
  xc_domaininfo_t info;
  if (!domain_info(*xen, domid, &info, fault)) return nullptr;
  std::unique_ptr<XenFrames> out(new XenFrames(xen, domid));
  if (is_hvm(info)) return out;
  out->p2m_ = GuestP2m::open(xen, info, fault);
  return out->p2m_ ? std::move(out) : nullptr;
}

bool XenFrames::size(uint64_t* total_pages, uint64_t* nr_pfns, Fault* fault) {
  xc_domaininfo_t info;
  if (!domain_info(*xen_, domid_, &info, fault)) return false;
  *total_pages = info.tot_pages;
  if (p2m_) return true;
  xen_pfn_t pfns = 0;
  if (xc_domain_nr_gpfns(xen_->xc(), domid_, &pfns) < 0)
    return raise_errno(fault, "maximum_gpfn", domid_);
  *nr_pfns = pfns;
  return true;
}

std::unique_ptr<HypercallBuffer> XenFrames::take_buffer() {
  std::lock_guard<std::mutex> hold(buffers_lock_);
  if (buffers_.empty())
    return std::make_unique<HypercallBuffer>(*xen_, kTypeBatch * sizeof(xen_pfn_t));
  auto buffer = std::move(buffers_.back());
  buffers_.pop_back();
  return buffer;
}

// Asking about a page that is to be populated on demand populates it, and marks it in the dirty
// log: none is left after a first look at all of them.
bool XenFrames::types(const uint64_t* frames, uint32_t n, uint8_t* out, Fault* fault) {
  auto buffer = take_buffer();
  if (!buffer->data()) return raise_errno(fault, "hypercall buffer", domid_);
  xen_pfn_t* array = buffer->as<xen_pfn_t>();
  for (uint32_t i = 0; i < n; ++i) array[i] = frames[i] == host::kNoMfn ? ~0ull : frames[i];
  xen_domctl op = {};
  op.u.getpageframeinfo3.num = n;
  set_xen_guest_handle_raw(op.u.getpageframeinfo3.array, array);
  const bool done = domctl(*xen_, domid_, XEN_DOMCTL_getpageframeinfo3, &op) == 0;
  if (!done) raise_errno(fault, "getpageframeinfo3", domid_);
  for (uint32_t i = 0; done && i < n; ++i)
    out[i] = (array[i] >> XEN_DOMCTL_PFINFO_LTAB_SHIFT) & 0xF;
  std::lock_guard<std::mutex> hold(buffers_lock_);
  buffers_.push_back(std::move(buffer));
  return done;
}

std::unique_ptr<host::Mapping> XenFrames::map(const uint64_t* frames, uint32_t n, int* errors,
                                              Fault* fault) {
  static_assert(sizeof(xen_pfn_t) == sizeof *frames);
  auto out = std::make_unique<XenMapping>();
  const auto* list = reinterpret_cast<const xen_pfn_t*>(frames);
  if (out->pages.map(xen_, domid_, list, n, errors)) return out;
  raise_errno(fault, "mapping the domain's memory", domid_);
  return nullptr;
}

std::shared_ptr<XenMemory> XenMemory::open(std::shared_ptr<Handles> xen, uint32_t domid,
                                           Fault* fault) {
  auto frames = XenFrames::open(std::move(xen), domid, fault);
  if (!frames) return nullptr;
  const GuestP2m* p2m = frames->p2m();
  std::shared_ptr<XenMemory> out(new XenMemory(std::move(frames), p2m));
  return out->map_all(fault) ? out : nullptr;
}

}  // namespace dormouse::xen
