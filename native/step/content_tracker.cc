#include "step/content_tracker.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

#include "guard.h"
#include "pfn/canonicalise.h"
#include "step/page_batch.h"

namespace dormouse::step {
namespace {

constexpr uint32_t kQueryPages = 1024;
constexpr uint64_t kPiecePages = 8192;  // what a thread takes at a time: a millisecond or so

struct Scratch {
  alignas(64) uint8_t page[host::kPageSize];
  uint64_t entries[kQueryPages];
};

// The content of a page as an image would hold it: in place where it can be, else in the scratch.
// *page is null for a page without a body; *valid false for a table that cannot be canonicalised
// and for a page that vanished since it was queried.
bool as_image_holds_it(host::DomainMemory& memory, const host::FrameMaps& maps, uint64_t pfn,
                       uint64_t entry, Scratch* scratch, const uint8_t** page, bool* valid,
                       Fault* fault) {
  *page = nullptr;
  *valid = true;
  const uint8_t type = host::type_of(entry);
  if (!host::has_body(type)) return true;
  const int level = host::table_level(type);
  if (level == 0) *page = memory.peek(pfn, entry);
  if (*page) return true;
  if (!memory.copy_out(&pfn, &entry, 1, scratch->page, fault)) {
    *valid = false;
    return is_vanished(fault);
  }
  *page = scratch->page;
  if (level == 0) return true;
  auto* table = reinterpret_cast<uint64_t*>(scratch->page);
  *valid = pfn::canonicalise(maps, level, table, table).fault == pfn::TableFault::none;
  return true;
}

// Calls visit(pfn, type, page, valid) for each pfn of the range.
template <typename Visit>
bool for_each_page(host::DomainMemory& memory, uint64_t first, uint64_t count, Fault* fault,
                   Visit visit) {
  static thread_local Scratch scratch;
  const host::FrameMaps maps = memory.maps();
  for (uint64_t done = 0; done < count;) {
    const uint32_t n = uint32_t(std::min<uint64_t>(kQueryPages, count - done));
    if (!memory.query(first + done, n, scratch.entries, fault)) return false;
    for (uint32_t i = 0; i < n; ++i) {
      const uint64_t pfn = first + done + i, entry = scratch.entries[i];
      const uint8_t* page;
      bool valid;
      if (!as_image_holds_it(memory, maps, pfn, entry, &scratch, &page, &valid, fault))
        return false;
      visit(pfn, host::type_of(entry), page, valid);
    }
    done += n;
  }
  return true;
}

}  // namespace

pfn::Hash128 ContentTracker::of(uint8_t type, const uint8_t* page) {
  pfn::Hash128 hash{0, 0};
  if (page) hash = pfn::hash128(page, host::kPageSize);
  hash.high ^= uint64_t(type + 1) * 0x9E3779B97F4A7C15ull;
  return hash;
}

bool ContentTracker::record_range(host::DomainMemory& memory, uint64_t first, uint64_t count,
                                  Fault* fault) {
  return for_each_page(memory, first, count, fault,
                       [&](uint64_t pfn, uint8_t type, const uint8_t* page, bool valid) {
                         if (valid)
                           record(pfn, type, page);
                         else
                           forget(pfn);
                       });
}

bool ContentTracker::changed_since(host::DomainMemory& memory, uint64_t first, uint64_t count,
                                   uint8_t* bitmap, uint64_t* changed, Fault* fault) const {
  std::fill(bitmap, bitmap + (count + 7) / 8, uint8_t(0));
  return for_each_page(memory, first, count, fault,
                       [&](uint64_t pfn, uint8_t type, const uint8_t* page, bool valid) {
                         if (valid && of(type, page) == hashes_[pfn]) return;
                         bitmap[(pfn - first) / 8] |= uint8_t(1u << (pfn - first) % 8);
                         ++*changed;
                       });
}

bool ContentTracker::changed_in_all(host::DomainMemory& memory, unsigned threads, uint8_t* bitmap,
                                    uint64_t* changed, Fault* fault) const {
  std::atomic<uint64_t> next{0}, total{0};
  std::atomic<bool> good{true};
  std::mutex fault_lock;
  auto work = [&] {
    for (;;) {
      const uint64_t first = next.fetch_add(kPiecePages);
      if (first >= nr_pfns() || !good) return;
      const uint64_t count = std::min(kPiecePages, nr_pfns() - first);
      uint64_t found = 0;
      Fault mine;
      const bool done = changed_since(memory, first, count, bitmap + first / 8, &found, &mine);
      total += found;
      if (done) continue;
      std::lock_guard<std::mutex> hold(fault_lock);
      if (good.exchange(false)) *fault = mine;
    }
  };
  auto work_guarded = [&] {
    Fault mine;
    if (guarded(&mine, [&] { return work(), true; })) return;
    std::lock_guard<std::mutex> hold(fault_lock);
    if (good.exchange(false)) *fault = mine;
  };
  const uint64_t pieces = (nr_pfns() + kPiecePages - 1) / kPiecePages;
  std::vector<std::thread> others;
  // Those that cannot be started are not missed.
  Fault no_thread;
  guarded(&no_thread, [&] {
    for (unsigned i = 1; i < std::min<uint64_t>(std::max(threads, 1u), pieces); ++i)
      others.emplace_back(work_guarded);
    return true;
  });
  work_guarded();
  for (std::thread& other : others) other.join();
  *changed += total;
  return good;
}

}  // namespace dormouse::step
