#include "host/xen/domain_builder.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace dormouse::xen {
namespace {

constexpr uint64_t kChunkPages = 1024;
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
  chunks_.resize((nr_pfns + kChunkPages - 1) / kChunkPages);
  return true;
}

bool DomainBuilder::populate(const uint64_t* pfns, uint64_t n, Fault* fault) {
  // Nobody is to map a frame that is listed only.
  std::lock_guard<std::mutex> hold(map_lock_);
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
    chunks_[pfn / kChunkPages].reset();
  }
  batch->clear();
  return true;
}

bool DomainBuilder::depopulate(const uint64_t* pfns, uint64_t n, Fault* fault) {
  std::vector<xen_pfn_t> list;
  for (uint64_t i = 0; i < n; ++i) {
    if (frame(pfns[i]) == host::kNoMfn) return fault->raise("INTERNAL", "freeing no frame");
    chunks_[pfns[i] / kChunkPages].reset();
    list.push_back(frames_[pfns[i]]);
    frames_[pfns[i]] = host::kNoMfn;
  }
  return xc_domain_decrease_reservation_exact(xen_->xc(), domid_, list.size(), 0, list.data()) ==
             0 ||
         raise_errno(fault, "giving memory back", domid_);
}

// A chunk of kChunkPages, mapped whole: pfns without a frame show another page.
std::shared_ptr<ForeignPages> DomainBuilder::map_chunk(uint64_t chunk, Fault* fault) {
  std::lock_guard<std::mutex> hold(map_lock_);
  if (chunks_[chunk]) return chunks_[chunk];
  const uint64_t start = chunk * kChunkPages;
  const uint64_t end = std::min<uint64_t>(start + kChunkPages, frames_.size());
  std::vector<xen_pfn_t> list(frames_.begin() + start, frames_.begin() + end);
  const auto filler =
      std::find_if(list.begin(), list.end(), [](xen_pfn_t one) { return one != host::kNoMfn; });
  if (filler == list.end()) {
    fault->raise("INTERNAL", "mapping memory that was not populated");
    return nullptr;
  }
  std::replace(list.begin(), list.end(), xen_pfn_t(host::kNoMfn), xen_pfn_t(*filler));
  std::vector<int> errors(list.size());
  auto mapped = std::make_shared<ForeignPages>();
  if (!mapped->map(xen_, domid_, list.data(), list.size(), errors.data(), true)) {
    raise_errno(fault, "mapping memory to fill", domid_);
    return nullptr;
  }
  for (const int error : errors) {
    if (error == 0) continue;
    errno = error < 0 ? -error : error;
    raise_errno(fault, "mapping memory to fill", domid_);
    return nullptr;
  }
  return chunks_[chunk] = std::move(mapped);
}

void DomainBuilder::unmap() {
  for (auto& chunk : chunks_) chunk.reset();
}

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

// The place of a pfn's page; *last remembers the chunk looked up last.
uint8_t* DomainBuilder::page(uint64_t pfn, MappedChunk* last, Fault* fault) {
  if (frame(pfn) == host::kNoMfn) {
    fault->pfn = pfn;
    fault->raise("IMAGE_DAMAGED", "pfn " + std::to_string(pfn) + " has a page but no frame");
    return nullptr;
  }
  const uint64_t chunk = pfn / kChunkPages;
  if (!last->pages || chunk != last->number) *last = {chunk, map_chunk(chunk, fault)};
  return last->pages ? last->pages->writable_data() + pfn % kChunkPages * host::kPageSize : nullptr;
}

bool DomainBuilder::copy_out(const uint64_t* pfns, const uint64_t*, uint32_t n, uint8_t* dst,
                             Fault* fault) {
  MappedChunk last;
  for (uint32_t i = 0; i < n; ++i, dst += host::kPageSize) {
    const uint8_t* from = page(pfns[i], &last, fault);
    if (!from) return false;
    std::memcpy(dst, from, host::kPageSize);
  }
  return true;
}

bool DomainBuilder::copy_in(const uint64_t* pfns, uint32_t n, const uint8_t* src, Fault* fault) {
  MappedChunk last;
  for (uint32_t i = 0; i < n; ++i, src += host::kPageSize) {
    uint8_t* to = page(pfns[i], &last, fault);
    if (!to) return false;
    std::memcpy(to, src, host::kPageSize);
  }
  return true;
}

bool DomainBuilder::pin(const std::vector<TableToPin>& tables, Fault* fault) {
  unmap();
  for (const TableToPin& table : tables) {
    mmuext_op op = {};
    op.cmd = MMUEXT_PIN_L1_TABLE + table.level - 1;
    op.arg1.mfn = frame(table.pfn);
    // One at a time: of a batch Xen does not say which one it refused.
    if (xc_mmuext_op(xen_->xc(), &op, 1, domid_) == 0) continue;
    fault->pfn = table.pfn;
    fault->sys_errno = errno;
    return fault->raise("PAGE_TABLE_INVALID",
                        "Xen refuses the page table of level " + std::to_string(table.level) +
                            " at pfn " + std::to_string(table.pfn) + ": " + std::strerror(errno));
  }
  return true;
}

}  // namespace dormouse::xen
