#include "host/xen/xen_memory.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace dormouse::xen {
namespace {

constexpr uint64_t kChunkPages = 4096;
constexpr uint32_t kTypeBatch = 1024;    // Xen's own limit
constexpr uint32_t kRemappedLimit = 64;  // pages mapped alone before their chunk is made anew
// Above this a pfn space is not believed: 16 TiB.
constexpr uint64_t kNrPfnsCap = 1ull << 32;

}  // namespace

std::shared_ptr<XenMemory> XenMemory::open(std::shared_ptr<Handles> xen, uint32_t domid,
                                           Fault* fault) {
  xc_domaininfo_t info;
  if (!domain_info(*xen, domid, &info, fault)) return nullptr;
  std::shared_ptr<XenMemory> out(new XenMemory(xen, domid));
  if (!is_hvm(info)) {
    out->p2m_ = GuestP2m::open(xen, info, fault);
    if (!out->p2m_) return nullptr;
  }
  return out->map_all(fault) ? out : nullptr;
}

bool XenMemory::map_all(Fault* fault) {
  if (!sample_pages(&total_pages_, fault)) return false;
  uint64_t nr_pfns = 0;
  if (p2m_) {
    nr_pfns = p2m_->nr_pfns();
  } else {
    xen_pfn_t pfns = 0;
    if (xc_domain_nr_gpfns(xen_->xc(), domid_, &pfns) < 0)
      return raise_errno(fault, "maximum_gpfn", domid_);
    nr_pfns = pfns;
  }
  if (nr_pfns == 0 || nr_pfns > kNrPfnsCap)
    return fault->raise("GUEST_MEMORY_UNREADABLE", "the domain has no usable pfn space");
  return resize(nr_pfns, fault);
}

bool XenMemory::sample_pages(uint64_t* total, Fault* fault) const {
  xc_domaininfo_t info;
  if (!domain_info(*xen_, domid_, &info, fault)) return false;
  *total = info.tot_pages;
  return true;
}

// Everything is unmapped and mapped again at the new size.
bool XenMemory::resize(uint64_t nr_pfns, Fault* fault) {
  alone_.clear();
  chunks_.clear();
  nr_pfns_ = nr_pfns;
  states_.assign(nr_pfns, kUnmapped);
  if (p2m_) {
    frames_.resize(nr_pfns);
    for (uint64_t pfn = 0; pfn < nr_pfns; ++pfn) frames_[pfn] = p2m_->frame(pfn);
  } else if (!find_populated(fault)) {
    return false;
  }
  chunks_.resize((nr_pfns + kChunkPages - 1) / kChunkPages);
  for (uint64_t i = 0; i < chunks_.size(); ++i)
    if (!map_chunk(i, fault)) return false;
  return true;
}

// Marks the populated pfns of a translated domain in states_, for map_chunk to map. Its pfn space
// reaches to 4 GiB and more however small it is, so the stretches without frames are remembered.
bool XenMemory::find_populated(Fault* fault) {
  holes_hold_ = false;
  inhabited_.assign((nr_pfns_ + kTypeBatch - 1) / kTypeBatch, false);
  uint64_t frames[kTypeBatch] = {};
  uint8_t kinds[kTypeBatch];
  for (uint64_t first = 0; first < nr_pfns_; first += kTypeBatch) {
    const uint32_t n = uint32_t(std::min<uint64_t>(kTypeBatch, nr_pfns_ - first));
    for (uint32_t i = 0; i < n; ++i) frames[i] = first + i;
    if (!types(frames, n, kinds, fault)) return false;
    for (uint32_t i = 0; i < n; ++i) {
      if (kinds[i] != host::kXtab) inhabited_[first / kTypeBatch] = true;
      if (host::has_body(kinds[i])) states_[first + i] = kInChunk;
    }
  }
  holes_hold_ = true;
  return true;
}

uint64_t XenMemory::next_present(uint64_t pfn) const {
  if (!knows_holes()) return pfn;
  while (pfn < nr_pfns_ && !inhabited_[pfn / kTypeBatch]) pfn = (pfn / kTypeBatch + 1) * kTypeBatch;
  return std::min(pfn, nr_pfns_);
}

bool XenMemory::map_chunk(uint64_t index, Fault* fault) {
  const uint64_t start = index * kChunkPages, end = std::min(start + kChunkPages, nr_pfns_);
  auto wanted = [&](uint64_t pfn) {
    return p2m_ ? frames_[pfn] != host::kNoMfn : states_[pfn] != kUnmapped;
  };
  uint64_t low = start, high = end;
  while (low < high && !wanted(low)) ++low;
  while (high > low && !wanted(high - 1)) --high;
  Chunk& chunk = chunks_[index];
  chunk.pages.reset();
  chunk.first = low;
  chunk.remapped = 0;
  for (uint64_t pfn = start; pfn < end; ++pfn)
    if (states_[pfn] == kAlone) alone_.erase(pfn);
  if (low == high) {
    std::fill(states_.begin() + start, states_.begin() + end, uint8_t(kUnmapped));
    return true;
  }
  std::vector<xen_pfn_t> frames(high - low);
  std::vector<int> errors(high - low);
  const uint64_t filler = p2m_ ? frames_[low] : low;
  for (uint64_t pfn = low; pfn < high; ++pfn)
    frames[pfn - low] = !wanted(pfn) ? filler : p2m_ ? frames_[pfn] : pfn;
  std::vector<bool> has_frame(end - start);
  for (uint64_t pfn = start; pfn < end; ++pfn) has_frame[pfn - start] = wanted(pfn);
  if (!chunk.pages.map(xen_, domid_, frames.data(), frames.size(), errors.data()))
    return raise_errno(fault, "mapping the domain's memory", domid_);
  for (uint64_t pfn = start; pfn < end; ++pfn)
    states_[pfn] = has_frame[pfn - start] && errors[pfn - low] == 0 ? kInChunk : kUnmapped;
  return true;
}

bool XenMemory::refresh(Fault* fault) {
  if (p2m_) {
    bool moved = false;
    if (!p2m_->refresh(&moved, fault)) return false;
    if (moved && p2m_->nr_pfns() != nr_pfns_) return resize(p2m_->nr_pfns(), fault);
    for (uint64_t i = 0; i < chunks_.size(); ++i)
      if (chunks_[i].remapped > kRemappedLimit && !map_chunk(i, fault)) return false;
    return true;
  }
  // While all populated frames are mapped none is freed, so a pfn that was given a new frame shows
  // as a grown count.
  uint64_t total = 0;
  if (!sample_pages(&total, fault)) return false;
  xen_pfn_t pfns = 0;
  if (xc_domain_nr_gpfns(xen_->xc(), domid_, &pfns) < 0)
    return raise_errno(fault, "maximum_gpfn", domid_);
  bool same = total == total_pages_ && pfns == nr_pfns_;
  for (const Chunk& chunk : chunks_) same = same && chunk.remapped <= kRemappedLimit;
  return same || map_all(fault);
}

host::FrameMaps XenMemory::maps() const {
  if (!p2m_) return {nullptr, 0, nullptr, 0};
  return {frames_.data(), nr_pfns_, p2m_->machine().table(), p2m_->machine().frames()};
}

// Types of frames[0, n): machine frames (PV) or pfns; host::kNoMfn gives kXtab.
bool XenMemory::types(const uint64_t* frames, uint32_t n, uint8_t* out, Fault* fault) {
  std::unique_ptr<HypercallBuffer> buffer;
  {
    std::lock_guard<std::mutex> hold(buffers_lock_);
    if (!buffers_.empty()) {
      buffer = std::move(buffers_.back());
      buffers_.pop_back();
    }
  }
  if (!buffer) buffer = std::make_unique<HypercallBuffer>(*xen_, kTypeBatch * sizeof(xen_pfn_t));
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

// Takes over what changed in the guest's list; a changed page is mapped again when it is read.
void XenMemory::follow_p2m(uint64_t first, uint32_t n) {
  for (uint64_t pfn = first; pfn < first + n; ++pfn) {
    const uint64_t now = p2m_->frame(pfn);
    if (now == frames_[pfn]) continue;
    __atomic_store_n(&frames_[pfn], now, __ATOMIC_RELAXED);
    drop_page(pfn);
  }
}

void XenMemory::drop_page(uint64_t pfn) {
  std::lock_guard<std::mutex> hold(alone_lock_);
  if (states_[pfn] == kAlone) alone_.erase(pfn);
  if (states_[pfn] == kInChunk) ++chunks_[pfn / kChunkPages].remapped;
  states_[pfn] = kUnmapped;
}

bool XenMemory::query(uint64_t first, uint32_t n, uint64_t* entries, Fault* fault) {
  if (n > kTypeBatch || first > nr_pfns_ || n > nr_pfns_ - first)
    return fault->raise("INTERNAL", "query beyond the domain's pfns");
  if (p2m_) follow_p2m(first, n);
  if (in_hole(first, n)) {
    std::fill(entries, entries + n, host::kNoMfn | uint64_t(host::kXtab) << 60);
    return true;
  }
  uint64_t frames[kTypeBatch] = {};
  uint8_t kinds[kTypeBatch];
  for (uint32_t i = 0; i < n; ++i) frames[i] = p2m_ ? frames_[first + i] : first + i;
  if (!types(frames, n, kinds, fault)) return false;
  for (uint32_t i = 0; i < n; ++i) {
    const bool none = kinds[i] == host::kXtab;
    if (none && !p2m_ && states_[first + i] != kUnmapped) {
      drop_page(first + i);
      holes_hold_ = false;
    }
    entries[i] = (none ? host::kNoMfn : frames[i]) | uint64_t(kinds[i]) << 60;
  }
  return true;
}

const uint8_t* XenMemory::map_alone(uint64_t pfn) {
  const xen_pfn_t frame = p2m_ ? frames_[pfn] : pfn;
  if (frame == host::kNoMfn) return nullptr;
  int error = 0;
  ForeignPages one;
  if (!one.map(xen_, domid_, &frame, 1, &error) || error != 0) return nullptr;
  std::lock_guard<std::mutex> hold(alone_lock_);
  states_[pfn] = kAlone;
  return (alone_[pfn] = std::move(one)).data();
}

const uint8_t* XenMemory::page(uint64_t pfn) {
  if (states_[pfn] == kInChunk) {
    const Chunk& chunk = chunks_[pfn / kChunkPages];
    return chunk.pages.data() + (pfn - chunk.first) * host::kPageSize;
  }
  if (states_[pfn] == kAlone) {
    std::lock_guard<std::mutex> hold(alone_lock_);
    return alone_[pfn].data();
  }
  return map_alone(pfn);
}

bool XenMemory::copy_out(const uint64_t* pfns, const uint64_t* entries, uint32_t n, uint8_t* dst,
                         Fault* fault) {
  (void)entries;
  for (uint32_t i = 0; i < n; ++i, dst += host::kPageSize) {
    const uint8_t* from = pfns[i] < nr_pfns_ ? page(pfns[i]) : nullptr;
    if (!from) {
      fault->pfn = pfns[i];
      return fault->raise("GUEST_MEMORY_UNREADABLE",
                          "pfn " + std::to_string(pfns[i]) + " cannot be mapped any more");
    }
    std::memcpy(dst, from, host::kPageSize);
  }
  return true;
}

const uint8_t* XenMemory::peek(uint64_t pfn, uint64_t entry) {
  return host::has_body(host::type_of(entry)) && pfn < nr_pfns_ ? page(pfn) : nullptr;
}

bool XenMemory::copy_in(const uint64_t*, uint32_t, const uint8_t*, Fault* fault) {
  return fault->raise("HOST_LACKS", "the memory of a finished domain is read-only here");
}

}  // namespace dormouse::xen
