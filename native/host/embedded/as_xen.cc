#include "host/embedded/as_xen.h"

#include <sys/mman.h>

#include <cerrno>

namespace dormouse::embedded {
namespace {

constexpr uint64_t kEntriesPerLeaf = 512;
constexpr uint64_t kNothing = host::kNoMfn | uint64_t(host::kXtab) << 60;

}  // namespace

class AsXenFrames::Pages : public host::Mapping {
 public:
  explicit Pages(std::shared_ptr<Held> held) : held_(std::move(held)) {}
  ~Pages() override {
    if (at_ != MAP_FAILED) munmap(at_, bytes_);
    std::lock_guard<std::mutex> hold(held_->lock);
    for (const auto& page : mine_)
      if (--held_->count[page] == 0) held_->count.erase(page);
  }
  bool reserve(uint64_t pages) {
    bytes_ = pages * kPageSize;
    at_ = mmap(nullptr, bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at_ != MAP_FAILED;
  }
  // Without a size to move, a shared mapping is mapped once more.
  bool place(uint64_t index, const uint8_t* from) {
    void* to = static_cast<uint8_t*>(at_) + index * kPageSize;
    return mremap(const_cast<uint8_t*>(from), 0, kPageSize, MREMAP_MAYMOVE | MREMAP_FIXED, to) !=
           MAP_FAILED;
  }
  void hold(uint64_t pfn, uint64_t mfn) {
    std::lock_guard<std::mutex> hold(held_->lock);
    ++held_->count[{pfn, mfn}];
    mine_.emplace_back(pfn, mfn);
  }
  const uint8_t* data() const override { return static_cast<const uint8_t*>(at_); }

 private:
  std::shared_ptr<Held> held_;
  void* at_ = MAP_FAILED;
  uint64_t bytes_ = 0;
  std::vector<std::pair<uint64_t, uint64_t>> mine_;
};

std::unique_ptr<AsXenFrames> AsXenFrames::open(std::shared_ptr<MachineMap> machine,
                                               const AsXenOptions& options, Fault* fault) {
  std::unique_ptr<AsXenFrames> out(new AsXenFrames(std::move(machine), options));
  const int pid = out->machine_->fds().pid;
  if (!out->entries_.open(pid, options.meta, options.nr_pfns * 8, false, fault)) return nullptr;
  for (const uint64_t pfn : options.p2m_pfns) {
    const uint64_t mfn = pfn < options.nr_pfns ? host::mfn_of(out->entry(pfn)) : host::kNoMfn;
    if (mfn >= out->nr_mfns()) {
      fault->raise("GUEST_MEMORY_UNREADABLE", "a page of the p2m has no frame");
      return nullptr;
    }
    out->leaves_.push_back(mfn);
  }
  return out;
}

bool AsXenFrames::size(uint64_t* total_pages, uint64_t* nr_pfns, Fault*) {
  *nr_pfns = options_.nr_pfns;
  *total_pages = 0;
  for (uint64_t pfn = 0; pfn < options_.nr_pfns; ++pfn)
    *total_pages += host::mfn_of(entry(pfn)) != host::kNoMfn;
  std::lock_guard<std::mutex> hold(held_->lock);
  for (const auto& [page, count] : held_->count)
    *total_pages += host::mfn_of(entry(page.first)) != page.second;
  return true;
}

uint64_t AsXenFrames::entry_of(uint64_t frame, uint64_t* pfn) const {
  *pfn = frame;
  if (!options_.translated) *pfn = frame < nr_mfns() ? m2p()[frame] : host::kNoMfn;
  if (*pfn >= options_.nr_pfns) return kNothing;
  const uint64_t found = entry(*pfn);
  return options_.translated || host::mfn_of(found) == frame ? found : kNothing;
}

bool AsXenFrames::types(const uint64_t* frames, uint32_t n, uint8_t* out, Fault*) {
  for (uint32_t i = 0; i < n; ++i) {
    uint64_t pfn;
    out[i] = host::type_of(entry_of(frames[i], &pfn));
    if (options_.translated && host::has_body(out[i])) out[i] = host::kNotab;
  }
  return true;
}

std::unique_ptr<host::Mapping> AsXenFrames::map(const uint64_t* frames, uint32_t n, int* errors,
                                                Fault* fault) {
  auto pages = std::make_unique<Pages>(held_);
  bool good = pages->reserve(n);
  for (uint32_t i = 0; good && i < n; ++i) {
    uint64_t pfn;
    const uint64_t mfn = host::mfn_of(entry_of(frames[i], &pfn));
    errors[i] = mfn < nr_mfns() ? 0 : ENOENT;
    if (errors[i] != 0) continue;
    good = pages->place(i, machine_->page(mfn));
    pages->hold(pfn, mfn);
  }
  if (good) return pages;
  fault->raise("NO_MEMORY", "cannot map the domain's memory page by page");
  return nullptr;
}

uint64_t AsXenFrames::p2m_frame(uint64_t pfn) const {
  const auto* leaf =
      reinterpret_cast<const uint64_t*>(machine_->page(leaves_[pfn / kEntriesPerLeaf]));
  const uint64_t mfn = __atomic_load_n(leaf + pfn % kEntriesPerLeaf, __ATOMIC_RELAXED);
  return mfn < nr_mfns() ? mfn : host::kNoMfn;
}

// Guests of this host leave their p2m where it is.
bool AsXenFrames::refresh_p2m(bool* moved, Fault*) {
  *moved = false;
  return true;
}

}  // namespace dormouse::embedded
