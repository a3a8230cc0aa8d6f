#include "step/rewind.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>

#include "guard.h"
#include "pfn/page_scan.h"
#include "pfn/pte.h"
#include "step/page_batch.h"
#include "step/placer.h"
#include "step/restore_step.h"

namespace dormouse::step {
namespace {

constexpr uint32_t kQueryPages = 1024;
constexpr uint64_t kEntries = host::kPageSize / sizeof(uint64_t);
// What a thread takes at a time.
constexpr uint64_t kWritePiecePfns = 4096;

bool has_frame(uint64_t entry) { return host::mfn_of(entry) != host::kNoMfn; }

void add_to_runs(std::vector<Piece>* runs, uint64_t pfn) {
  if (!runs->empty() && runs->back().first + runs->back().count == pfn)
    runs->back().count++;
  else
    runs->push_back({pfn, 1});
}

// Tables of level 4 have slots that are the hypervisor's.
void take_xen_slots(int level, const uint8_t* from, uint8_t* to) {
  if (level != 4) return;
  constexpr size_t kAt = pfn::kXenSlotFirst * sizeof(uint64_t);
  constexpr size_t kBytes = (pfn::kXenSlotEnd - pfn::kXenSlotFirst) * sizeof(uint64_t);
  std::memcpy(to + kAt, from + kAt, kBytes);
}

// The page as it is now: in place where it can be, else copied. Null, without a fault, if it
// vanished.
const uint8_t* page_now(host::DomainMemory& memory, uint64_t pfn, uint64_t entry, uint8_t* room,
                        Fault* fault) {
  if (const uint8_t* page = memory.peek(pfn, entry)) return page;
  if (memory.copy_out(&pfn, &entry, 1, room, fault)) return room;
  is_vanished(fault);
  return nullptr;
}

}  // namespace

struct Rewind::Scratch {
  alignas(64) uint8_t now[host::kPageSize];
  alignas(64) uint8_t wanted[host::kPageSize];
};

Rewind::Scratch& Rewind::scratch() {
  static thread_local Scratch room;
  return room;
}

Rewind::Rewind(std::shared_ptr<image::ImageReader> reader, std::vector<uint64_t> leaves,
               uint64_t start_info)
    : reader_(std::move(reader)),
      start_info_(start_info),
      leaves_(std::move(leaves)),
      wanted_(reader_->nr_pfns()),
      seen_(reader_->nr_pfns()),
      kept_at_(reader_->nr_pfns(), kNotKept),
      candidates_(reader_->nr_pfns()) {
  candidates_.clear();
  const image::ReaderMap& map = reader_->map();
  for (size_t i = 0; i < map.runs().size(); ++i) {
    const image::PlacedRun& run = map.runs()[i];
    std::fill(wanted_.begin() + run.first, wanted_.begin() + long(map.end_of(i)),
              uint8_t(run.page_class | run.type << 4));
  }
  for (uint64_t k = 0; k < leaves_.size(); ++k) leaf_at_.emplace(leaves_[k], k);
  if (start_info_ < nr_pfns()) candidates_.add(start_info_);
}

Rewind::~Rewind() {
  if (kept_) munmap(kept_, max_kept_ * host::kPageSize);
}

bool Rewind::allocate(uint64_t max_kept, Fault* fault) {
  max_kept_ = std::max<uint64_t>(max_kept, 1);
  void* at = mmap(nullptr, max_kept_ * host::kPageSize, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) {
    fault->sys_errno = errno;
    max_kept_ = 0;
    return fault->raise("NO_MEMORY", "no memory for the pages that differ");
  }
  kept_ = static_cast<uint8_t*>(at);
  madvise(kept_, max_kept_ * host::kPageSize, MADV_HUGEPAGE);  // advice
  uint64_t bodies = 0;
  for (const uint8_t wanted : wanted_) bodies += image::class_has_body(wanted & 15);
  keep_all_ = bodies <= max_kept_;
  return true;
}

void Rewind::keep_frames(std::vector<uint64_t> alone) {
  frames_stay_ = true;
  localise_ = pfn::localise_running;
  leaf_at_.clear();
  for (const uint64_t leaf : leaves_) leaf_bodies_.emplace(leaf, std::vector<uint8_t>());
  alone_ = std::move(alone);
}

// A leaf of the p2m that is to be another one is of a time at which a page had another frame.
bool Rewind::check_frames_stay(host::DomainMemory& memory, Fault* fault) const {
  for (const uint64_t leaf : leaves_) {
    if (!has(leaf)) continue;
    uint64_t entry = 0;
    if (!memory.query(leaf, 1, &entry, fault)) return false;
    const uint8_t* now = page_now(memory, leaf, entry, scratch().now, fault);
    if (*fault) return false;
    const auto& then = leaf_bodies_.at(leaf);
    if (now && !then.empty() && std::memcmp(now, then.data(), host::kPageSize) == 0) continue;
    fault->pfn = leaf;
    return fault->raise("HOST_LACKS",
                        "pages of the domain have other frames than in the image, as after "
                        "ballooning: such an image cannot be gone back to in place");
  }
  return true;
}

bool Rewind::has(uint64_t pfn) const {
  uint64_t found;
  return candidates_.list(pfn, 1, &found) == 1;
}

// Of a pfn whose frame is another one.
void Rewind::add_leaf_of(uint64_t pfn) {
  if (pfn / kEntries < leaves_.size()) candidates_.add(leaves_[pfn / kEntries]);
}

bool Rewind::wants_frame(uint64_t pfn) const {
  const uint8_t page_class = wanted_class(pfn);
  return page_class != image::kClassNoFrame && page_class != image::kClassBroken;
}

bool Rewind::fits(uint64_t pfn, uint64_t entry) const {
  if (has_frame(entry) != wants_frame(pfn)) return false;
  // Of a page without content of interest the host may say what it likes.
  if (!image::class_has_content(wanted_class(pfn))) return true;
  return host::type_of(entry) == wanted_type(pfn);
}

bool Rewind::look(host::DomainMemory& memory, Fault* fault) {
  uint64_t entries[kQueryPages];
  for (uint64_t first = 0; first < nr_pfns(); first += kQueryPages) {
    const uint32_t n = uint32_t(std::min<uint64_t>(kQueryPages, nr_pfns() - first));
    if (!memory.query(first, n, entries, fault)) return false;
    for (uint32_t i = 0; i < n; ++i) {
      const uint64_t pfn = first + i;
      const bool moved = looked_ && host::mfn_of(seen_[pfn]) != host::mfn_of(entries[i]);
      if (moved || !fits(pfn, entries[i])) candidates_.add(pfn);
      if (moved) add_leaf_of(pfn);
      seen_[pfn] = entries[i];
    }
  }
  looked_ = true;
  return true;
}

// What localising would refuse in the pause is refused before the guest is touched.
bool Rewind::check_table(const host::FrameMaps& maps, uint64_t pfn, const uint8_t* body,
                         Fault* fault) const {
  const int level = host::table_level(wanted_type(pfn));
  const auto* entries = reinterpret_cast<const uint64_t*>(body);
  alignas(64) uint64_t lent[kEntries] = {};
  bool lends = false;
  for (uint64_t i = 0; i < kEntries; ++i) {
    const uint64_t entry = entries[i];
    if (!(entry & pfn::kPtePresent)) continue;
    const uint64_t target = (entry & pfn::kPteFrame) >> pfn::kFrameShift;
    const bool super = (entry & pfn::superpage_bits(level)) != 0;
    if (!super && target < nr_pfns() && wants_frame(target)) continue;
    if (!super && frames_stay_ && (target & pfn::kXenFrameMark)) {
      lends = true;
      lent[i] = entry;
      continue;
    }
    fault->pfn = pfn;
    return fault->raise("IMAGE_DAMAGED", "page table at pfn " + std::to_string(pfn) +
                                             " of the image is not valid: entry " +
                                             std::to_string(i) + " leads to no page of it");
  }
  // Of frames that are Xen's own it is said here whether they can be any.
  return !lends || localise_body(maps, pfn, level, reinterpret_cast<const uint8_t*>(lent),
                                 scratch().wanted, fault, localise_);
}

void Rewind::keep_page(uint64_t pfn, const uint8_t* body) {
  if (kept_at_[pfn] != kNotKept || next_kept_.load(std::memory_order_relaxed) >= max_kept_) return;
  const uint64_t at = next_kept_.fetch_add(1);
  if (at >= max_kept_) return;
  std::memcpy(kept_ + at * host::kPageSize, body, host::kPageSize);
  kept_at_[pfn] = uint32_t(at);
}

bool Rewind::compare_chunk(host::DomainMemory& memory, uint32_t lane, uint32_t index,
                           uint64_t* differing, Fault* fault) {
  image::DecodedChunk chunk;
  if (!reader_->read_chunk(lane, index, &chunk, fault)) return false;
  const host::FrameMaps maps = memory.maps();
  Scratch& room = scratch();
  for (uint32_t slot = 0; slot < chunk.n_pages; ++slot) {
    const uint64_t pfn = image::desc_pfn(chunk.descs[slot]);
    if (!reader_->is_current(index, slot, pfn)) continue;
    const uint8_t* body = chunk.bodies + uint64_t(slot) * host::kPageSize;
    const int level = host::table_level(wanted_type(pfn));
    if (level != 0 && !check_table(maps, pfn, body, fault)) return false;
    // By one lane only: each page is current in one chunk.
    if (const auto kept = leaf_bodies_.find(pfn); kept != leaf_bodies_.end())
      kept->second.assign(body, body + host::kPageSize);
    uint64_t entry = 0;
    if (!memory.query(pfn, 1, &entry, fault)) return false;
    const uint8_t* now = fits(pfn, entry) ? page_now(memory, pfn, entry, room.now, fault) : nullptr;
    if (*fault) return false;
    const uint8_t* wanted = body;
    const auto leaf = leaf_at_.find(pfn);
    if (now && leaf != leaf_at_.end()) {
      make_p2m_leaf(maps, leaf->second, reinterpret_cast<uint64_t*>(room.wanted));
      wanted = room.wanted;
    } else if (now && level != 0) {
      Fault moved;  // a frame that the guest gave back since: the log or the next look tells
      if (localise_body(maps, pfn, level, body, room.wanted, &moved, localise_))
        take_xen_slots(level, now, room.wanted);
      else
        now = nullptr;
      wanted = room.wanted;
    }
    const bool differs = !now || std::memcmp(now, wanted, host::kPageSize) != 0;
    if (differs) {
      ++*differing;
      candidates_.add(pfn);
    }
    // What the log named meanwhile may be a candidate of the next merge: it is kept then, at the
    // latest.
    if ((differs || keep_all_ || pfn == start_info_) && leaf == leaf_at_.end())
      keep_page(pfn, body);
  }
  return true;
}

bool Rewind::compare_blanks(host::DomainMemory& memory, const image::BlankPages& blanks,
                            uint64_t* differing, Fault* fault) {
  if (blanks.page_class != image::kClassZero) return true;
  uint64_t entries[kQueryPages];
  const uint64_t end = blanks.first + blanks.count;
  for (uint64_t first = blanks.first; first < end; first += kQueryPages) {
    const uint32_t n = uint32_t(std::min<uint64_t>(kQueryPages, end - first));
    if (!memory.query(first, n, entries, fault)) return false;
    for (uint32_t i = 0; i < n; ++i) {
      const uint8_t* now = fits(first + i, entries[i])
                               ? page_now(memory, first + i, entries[i], scratch().now, fault)
                               : nullptr;
      if (*fault) return false;
      if (now && pfn::is_zero_page(now)) continue;
      ++*differing;
      candidates_.add(first + i);
    }
  }
  return true;
}

bool Rewind::compare(host::DomainMemory& memory, uint32_t lane, uint32_t first, uint32_t count,
                     uint64_t* differing, Fault* fault) {
  for (uint32_t i = first; i < first + count; ++i) {
    const bool good =
        i < reader_->nr_chunks()
            ? compare_chunk(memory, lane, i, differing, fault)
            : compare_blanks(memory, reader_->blanks()[i - reader_->nr_chunks()], differing, fault);
    if (!good) return false;
  }
  return true;
}

bool Rewind::suspect_all() {
  if (!keep_all_) return false;
  candidates_.fill();
  return true;
}

std::vector<Piece> Rewind::missing() const {
  std::vector<bool> wanted(reader_->nr_chunks());
  uint64_t pfns[64];
  for (uint64_t first = 0; first < nr_pfns(); first += 64) {
    if (candidates_.count_word(first) == 0) continue;
    const uint32_t n =
        candidates_.list(first, uint32_t(std::min<uint64_t>(64, nr_pfns() - first)), pfns);
    for (uint32_t i = 0; i < n; ++i)
      if (kept_at_[pfns[i]] == kNotKept && image::class_has_body(wanted_class(pfns[i])) &&
          leaf_at_.count(pfns[i]) == 0)
        reader_->mark_chunks(pfns[i], 1, &wanted);
  }
  std::vector<Piece> pieces;
  for (uint64_t chunk = 0; chunk < wanted.size(); ++chunk)
    if (wanted[chunk]) pieces.push_back({chunk, 1});
  return pieces;
}

bool Rewind::keep(uint32_t lane, uint32_t first, uint32_t count, Fault* fault) {
  for (uint32_t i = first; i < first + count; ++i) {
    if (next_kept_.load(std::memory_order_relaxed) >= max_kept_) return true;
    image::DecodedChunk chunk;
    if (!reader_->read_chunk(lane, i, &chunk, fault)) return false;
    for (uint32_t slot = 0; slot < chunk.n_pages; ++slot) {
      const uint64_t pfn = image::desc_pfn(chunk.descs[slot]);
      if (reader_->is_current(i, slot, pfn) && has(pfn) && leaf_at_.count(pfn) == 0)
        keep_page(pfn, chunk.bodies + uint64_t(slot) * host::kPageSize);
    }
  }
  return true;
}

bool Rewind::plan(host::DomainMemory& memory, bool whole, RewindPlan* plan, Fault* fault) {
  for (const uint64_t pfn : alone_) candidates_.remove(pfn);
  if (frames_stay_ && !check_frames_stay(memory, fault)) return false;
  uint64_t pfns[64], entries[64];
  for (uint64_t first = 0; first < nr_pfns(); first += 64) {
    if (candidates_.count_word(first) == 0) continue;
    const uint32_t span = uint32_t(std::min<uint64_t>(64, nr_pfns() - first));
    if (!memory.query(first, span, entries, fault)) return false;
    const uint32_t n = candidates_.list(first, span, pfns);
    for (uint32_t i = 0; i < n; ++i) {
      const uint64_t pfn = pfns[i], entry = entries[pfn - first];
      const bool frame = has_frame(entry);
      if (frame && !wants_frame(pfn)) add_to_runs(&plan->lost, pfn);
      if (!frame && wants_frame(pfn)) add_to_runs(&plan->gained, pfn);
      const bool moved = host::mfn_of(entry) != host::mfn_of(seen_[pfn]);
      if (moved || frame != wants_frame(pfn)) add_leaf_of(pfn);
      seen_[pfn] = entry;
      if (whole || !frame || host::table_level(host::type_of(entry)) == 0) continue;
      plan->tables.push_back(pfn);
      const bool pinned = (host::type_of(entry) & host::kPinned) != 0;
      if (pinned && host::type_of(entry) != wanted_type(pfn)) plan->unpinned.push_back(pfn);
    }
    for (uint32_t i = 0; i < n && !whole; ++i) {
      const uint8_t type = wanted_type(pfns[i]);
      const int level = host::table_level(type);
      if (level != 0 && (type & host::kPinned) && host::type_of(entries[pfns[i] - first]) != type)
        plan->pins.push_back({pfns[i], level});
    }
  }
  for (uint64_t pfn = 0; whole && pfn < nr_pfns(); ++pfn)
    if (const int level = host::table_level(wanted_type(pfn)))
      if (wanted_type(pfn) & host::kPinned) plan->pins.push_back({pfn, level});
  return true;
}

bool Rewind::put_if_other(host::DomainMemory& memory, uint64_t pfn, uint64_t entry,
                          const uint8_t* page, RewindCounts* counts, Fault* fault) {
  Scratch& room = scratch();
  const uint8_t* now = page_now(memory, pfn, entry, room.now, fault);
  if (*fault) return false;
  if (now && std::memcmp(now, page, host::kPageSize) == 0) {
    counts->same++;
    return true;
  }
  counts->put++;
  return memory.copy_in(&pfn, 1, page, fault);
}

bool Rewind::write_page(host::DomainMemory& memory, uint64_t pfn, const uint8_t* body,
                        RewindCounts* counts, Fault* fault) {
  uint64_t entry = 0;
  if (!memory.query(pfn, 1, &entry, fault)) return false;
  Scratch& room = scratch();
  const int level = host::table_level(wanted_type(pfn));
  const auto leaf = leaf_at_.find(pfn);
  if (leaf != leaf_at_.end()) {
    make_p2m_leaf(memory.maps(), leaf->second, reinterpret_cast<uint64_t*>(room.wanted));
    body = room.wanted;
  } else if (level != 0) {
    if (!localise_body(memory.maps(), pfn, level, body, room.wanted, fault, localise_))
      return false;
    const uint8_t* now = page_now(memory, pfn, entry, room.now, fault);
    if (!now) return false;
    take_xen_slots(level, now, room.wanted);
    body = room.wanted;
  }
  return put_if_other(memory, pfn, entry, body, counts, fault);
}

bool Rewind::write_range(host::DomainMemory& memory, uint64_t first, uint64_t end,
                         RewindCounts* counts, Fault* fault) {
  uint64_t pfns[64];
  for (; first < end; first += 64) {
    if (candidates_.count_word(first) == 0) continue;
    const uint32_t n = candidates_.list(first, uint32_t(std::min<uint64_t>(64, end - first)), pfns);
    for (uint32_t i = 0; i < n; ++i) {
      const uint64_t pfn = pfns[i];
      const uint8_t page_class = wanted_class(pfn);
      const bool is_leaf = leaf_at_.count(pfn) != 0;
      const uint8_t* body = kZeroPage;
      if (!is_leaf && image::class_has_body(page_class)) {
        if (kept_at_[pfn] == kNotKept) continue;
        body = kept_ + uint64_t(kept_at_[pfn]) * host::kPageSize;
      } else if (!is_leaf && page_class != image::kClassZero) {
        // A frame that came or went is all there is to such a page.
        counts->put += has_frame(seen_[pfn]) != wants_frame(pfn);
        continue;
      }
      const uint64_t same = counts->same;
      if (!write_page(memory, pfn, body, counts, fault)) return false;
      if (counts->same == same || has_frame(seen_[pfn])) continue;
      // The frame that it got is what was put.
      counts->same--;
      counts->put++;
    }
  }
  return true;
}

bool Rewind::write(host::DomainMemory& memory, unsigned threads, RewindCounts* counts,
                   Fault* fault) {
  std::atomic<uint64_t> next{0};
  std::atomic<bool> good{true};
  std::mutex lock;
  auto work = [&] {
    RewindCounts mine;
    Fault bad;
    const bool done = guarded(&bad, [&] {
      while (good) {
        const uint64_t first = next.fetch_add(kWritePiecePfns);
        if (first >= nr_pfns()) break;
        const uint64_t end = std::min(nr_pfns(), first + kWritePiecePfns);
        if (!write_range(memory, first, end, &mine, &bad)) return false;
      }
      return true;
    });
    std::lock_guard<std::mutex> hold(lock);
    counts->put += mine.put;
    counts->same += mine.same;
    if (!done && good.exchange(false)) *fault = bad;
  };
  std::vector<std::thread> others;
  // A thread takes longer to start than so many pages to write.
  constexpr uint64_t kWorthAThread = 512;
  const uint64_t useful = std::min<uint64_t>(threads, 1 + candidates() / kWorthAThread);
  Fault no_thread;
  guarded(&no_thread, [&] {
    for (unsigned i = 1; i < useful; ++i) others.emplace_back(work);
    return true;
  });
  work();
  for (std::thread& other : others) other.join();
  return good;
}

bool Rewind::place(host::DomainMemory& memory, uint32_t lane, uint32_t first, uint32_t count,
                   RewindCounts* counts, Fault* fault) {
  for (uint32_t i = first; i < first + count; ++i) {
    image::DecodedChunk chunk;
    if (!reader_->read_chunk(lane, i, &chunk, fault)) return false;
    for (uint32_t slot = 0; slot < chunk.n_pages; ++slot) {
      const uint64_t pfn = image::desc_pfn(chunk.descs[slot]);
      if (!reader_->is_current(i, slot, pfn) || kept_at_[pfn] != kNotKept || !has(pfn)) continue;
      if (leaf_at_.count(pfn) != 0) continue;
      const uint8_t* body = chunk.bodies + uint64_t(slot) * host::kPageSize;
      if (!write_page(memory, pfn, body, counts, fault)) return false;
    }
  }
  return true;
}

}  // namespace dormouse::step
