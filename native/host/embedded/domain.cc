#include "host/embedded/domain.h"

#include <algorithm>
#include <string>
#include <utility>

namespace dormouse::embedded {

Domain::Domain(Machine& mach, uint16_t number, DomainType kind, uint32_t vcpu_count, uint64_t max)
    : machine(mach), domid(number), type(kind), max_pages(max) {
  for (uint32_t i = 0; i < vcpu_count; i++) vcpus.push_back(std::make_unique<Vcpu>(*this, i));
}

Domain::~Domain() {
  for (Backend* backend : backends()) backend->end();
  stop_threads();
  finish_cow_clean_up();
  std::vector<uint32_t> mfns;
  for (uint64_t pfn = 0; pfn < nr_pfns; pfn++)
    if (has_frame(pfn)) mfns.push_back(uint32_t(mfn(pfn)));
  for (const Detached& gone : detached) mfns.push_back(gone.mfn);
  mfns.insert(mfns.end(), quarantined.begin(), quarantined.end());
  if (shared_info_mfn) mfns.push_back(uint32_t(shared_info_mfn));
  machine.free(std::move(mfns));
}

bool Domain::init(Fault* fault) {
  uint32_t mfn;
  if (!machine.allocate(domid, 1, &mfn, fault)) return false;
  shared_info_mfn = mfn;
  machine.touched(mfn) = 1;
  return true;
}

bool Domain::set_geometry(Geometry geometry, Fault* fault) {
  if (rewriting && geometry.nr_pfns == nr_pfns) {
    built_geometry = std::move(geometry);
    return true;
  }
  if (nr_pfns) return fault->raise("DOMAIN_WRONG_STATE", "its geometry is set already");
  const uint64_t n = geometry.nr_pfns;
  if (!meta.create("dormouse-meta", n * 8, false, fault)) return false;
  if (!meta_snap.create("dormouse-meta-snap", n * 8, false, fault)) return false;
  if (!cow_store.create("dormouse-cow", n * kPageSize, true, fault)) return false;
  std::fill_n(meta.as<uint64_t>(), n, kNoFrame);
  changed_bitmap.assign((n + 63) / 64, 0);
  nr_pfns = n;
  built_geometry = std::move(geometry);
  built_generation = built_geometry.p2m_generation;
  return true;
}

void Domain::set_entry(uint64_t pfn, uint64_t entry, Change change) {
  meta_words()[pfn].store(entry, std::memory_order_release);
  if (!(unlogged & change)) mark_dirty(pfn);
  uint64_t& word = changed_bitmap[pfn >> 6];
  const uint64_t bit = 1ull << (pfn & 63);
  if (all_changed || (word & bit)) return;
  word |= bit;
  changed_pfns.push_back(uint32_t(pfn));
}

void Domain::set_entry_type(uint64_t mfn, uint8_t nibble) {
  const uint64_t pfn = machine.m2p(mfn);
  if (pfn < nr_pfns && this->mfn(pfn) == mfn)
    set_entry(pfn, mfn | uint64_t(nibble) << 60, kRetyped);
}

void Domain::attach_frame(uint64_t pfn, uint64_t mfn) {
  machine.m2p(mfn).store(pfn, std::memory_order_relaxed);
  // Not part of a snapshot that is active now: nobody needs a copy of what it held.
  if (const uint64_t epoch = cow_epoch)
    machine.cow_word(mfn) = CowWord::make(epoch, CowWord::kDone);
  set_entry(pfn, mfn, kGained);
  owned++;
}

void Domain::detach_frame(uint64_t pfn) {
  const auto gone = uint32_t(mfn(pfn));
  set_entry(pfn, kNoFrame, kLost);
  owned--;
  machine.frame(gone) = Frame{};  // nothing may be made to name it again
  const uint64_t generation = ++tlb_generation;
  if (cow_epoch)
    quarantined.push_back(gone);
  else
    detached.push_back({gone, generation});
}

void Domain::reclaim() {
  uint64_t oldest = ~0ull;
  for (const auto& vcpu : vcpus)
    if (vcpu->state == Vcpu::kRun) oldest = std::min<uint64_t>(oldest, vcpu->seen_tlb);
  std::vector<uint32_t> mfns;
  for (const Detached& gone : detached)
    if (gone.tlb_generation <= oldest) mfns.push_back(gone.mfn);
  detached.erase(std::remove_if(detached.begin(), detached.end(),
                                [&](const Detached& d) { return d.tlb_generation <= oldest; }),
                 detached.end());
  if (!mfns.empty()) machine.free(std::move(mfns));
}

bool Domain::check_runs(const std::vector<PfnRun>& runs, Fault* fault) const {
  for (const PfnRun& run : runs) {
    if (run.first >= nr_pfns || run.count > nr_pfns - run.first) {
      fault->pfn = run.first;
      return fault->raise("DOMAIN_WRONG_STATE", "pages beyond the domain's pfn space");
    }
    for (uint64_t pfn = run.first; !rewriting && pfn < run.first + run.count; pfn++) {
      if (!has_frame(pfn)) continue;
      fault->pfn = pfn;
      return fault->raise("DOMAIN_WRONG_STATE", "pfn has a frame already");
    }
  }
  return true;
}

void Domain::detach_all_but(const std::vector<PfnRun>& runs) {
  std::vector<bool> wanted(nr_pfns);
  for (const PfnRun& run : runs)
    for (uint64_t pfn = run.first; pfn < run.first + run.count; pfn++) wanted[pfn] = true;
  for (uint64_t pfn = 0; pfn < nr_pfns; pfn++)
    if (!wanted[pfn] && has_frame(pfn)) detach_frame(pfn);
  reclaim();
}

bool Domain::populate(const std::vector<PfnRun>& runs, Fault* fault) {
  std::lock_guard<std::mutex> lock(mmu);
  if (!check_runs(runs, fault)) return false;
  if (rewriting) detach_all_but(runs);
  uint64_t total = 0;
  for (const PfnRun& run : runs)
    for (uint64_t pfn = run.first; pfn < run.first + run.count; pfn++) total += !has_frame(pfn);
  if (total > max_pages - owned)
    return fault->raise("NO_MEMORY", "the domain may own " + std::to_string(max_pages) + " pages");
  std::vector<uint32_t> mfns(total);
  if (!machine.allocate(domid, total, mfns.data(), fault)) return false;
  uint64_t used = 0;
  for (const PfnRun& run : runs)
    for (uint64_t pfn = run.first; pfn < run.first + run.count; pfn++)
      if (!has_frame(pfn)) attach_frame(pfn, mfns[used++]);
  // A run that was named twice took its frames once.
  machine.free({mfns.begin() + long(used), mfns.end()});
  return true;
}

void Domain::depopulate(const PfnRun& run) {
  std::lock_guard<std::mutex> lock(mmu);
  for (uint64_t pfn = run.first; pfn < std::min(nr_pfns, run.first + run.count); pfn++)
    if (has_frame(pfn)) detach_frame(pfn);
}

namespace {

// PFNs of the leaf pages of the linear p2m list; empty if some page of it is not the domain's own.
std::vector<uint64_t> linear_leaves(const Domain& dom, const SharedInfo& info) {
  std::vector<uint64_t> leaves;
  Machine& machine = dom.machine;
  for (uint64_t i = 0; i < (dom.nr_pfns + 511) / 512; i++) {
    const uint64_t address = info.p2m_vaddr + i * kPageSize;
    uint64_t table = mfn_of_pte(info.p2m_cr3);
    for (int level = 4; level >= 1; level--) {
      if (!machine.owned_by(table, dom.domid)) return {};
      const uint64_t pte = machine.words(table)[address >> (12 + 9 * (level - 1)) & 511];
      if (!(pte & kPtePresent)) return {};
      table = mfn_of_pte(pte);
    }
    if (!machine.owned_by(table, dom.domid)) return {};
    leaves.push_back(machine.m2p(table));
  }
  return leaves;
}

// The same by the three-level tree.
std::vector<uint64_t> tree_leaves(const Domain& dom, const SharedInfo& info) {
  std::vector<uint64_t> leaves;
  Machine& machine = dom.machine;
  for (uint64_t i = 0; i < (dom.nr_pfns + 511) / 512; i++) {
    if (!machine.owned_by(info.frame_list_list, dom.domid) || i / 512 >= 512) return {};
    const uint64_t mid = machine.words(info.frame_list_list)[i / 512];
    if (!machine.owned_by(mid, dom.domid)) return {};
    const uint64_t leaf = machine.words(mid)[i % 512];
    if (!machine.owned_by(leaf, dom.domid)) return {};
    leaves.push_back(machine.m2p(leaf));
  }
  return leaves;
}

}  // namespace

Geometry Domain::geometry() const {
  Geometry found = built_geometry;
  if (type != DomainType::pv || building) return found;
  const SharedInfo info = shared_info();
  if (info.p2m_generation == built_generation) return found;
  std::vector<uint64_t> leaves =
      info.p2m_cr3 ? linear_leaves(*this, info) : tree_leaves(*this, info);
  for (const uint64_t pfn : leaves)
    if (!has_frame(pfn)) return found;
  if (leaves.empty()) return found;
  found.p2m_frames = std::move(leaves);
  found.p2m_generation = info.p2m_generation;
  return found;
}

}  // namespace dormouse::embedded
