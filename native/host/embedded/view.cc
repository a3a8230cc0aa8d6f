#include "host/embedded/view.h"

#include <sched.h>
#include <time.h>

#include <cstring>
#include <string>

namespace dormouse::embedded {

bool MachineMap::open(const MachineFds& fds, Fault* fault) {
  fds_ = fds;
  return memory_.open(fds.pid, fds.memory, fds.frames * kPageSize, false, fault) &&
         m2p_.open(fds.pid, fds.m2p, fds.frames * 8, false, fault) &&
         states_.open(fds.pid, fds.states, fds.frames * 8, true, fault) &&
         touched_.open(fds.pid, fds.touched, fds.frames, false, fault);
}

bool MachineMap::make_writable(Fault* fault) {
  std::lock_guard<std::mutex> hold(lock_);
  return (memory_rw_.data() ||
          memory_rw_.open(fds_.pid, fds_.memory, fds_.frames * kPageSize, true, fault)) &&
         (touched_rw_.data() || touched_rw_.open(fds_.pid, fds_.touched, fds_.frames, true, fault));
}

void MachineMap::write(uint64_t mfn, const uint8_t* page, bool by_file) {
  auto& touched = touched_rw_.as<std::atomic<uint8_t>>()[mfn];
  if (touched.load(std::memory_order_relaxed)) {
    std::memcpy(memory_rw_.data() + mfn * kPageSize, page, kPageSize);
    return;
  }
  touched.store(1, std::memory_order_release);
  if (by_file)
    memory_rw_.fill_page(mfn, page);
  else
    std::memcpy(memory_rw_.data() + mfn * kPageSize, page, kPageSize);
}

std::shared_ptr<EmbeddedMemory> EmbeddedMemory::open(std::shared_ptr<MachineMap> machine,
                                                     const ViewOptions& options, Fault* fault) {
  std::shared_ptr<EmbeddedMemory> view(new EmbeddedMemory(std::move(machine), options));
  const int pid = view->machine_->fds().pid;
  const bool frozen = options.kind == ViewKind::snapshot;
  if (!view->entries_.open(pid, frozen ? options.meta_snap : options.meta, options.nr_pfns * 8,
                           false, fault))
    return nullptr;
  if (frozen && !view->cow_.open(pid, options.cow, options.nr_pfns * kPageSize, false, fault))
    return nullptr;
  if (view->is_writable() && !view->machine_->make_writable(fault)) return nullptr;
  return view;
}

host::FrameMaps EmbeddedMemory::maps() const {
  return {entries_.as<uint64_t>(), options_.nr_pfns, machine_->m2p(), machine_->fds().frames};
}

bool EmbeddedMemory::query(uint64_t first, uint32_t n, uint64_t* entries, Fault* fault) {
  if (first > options_.nr_pfns || n > options_.nr_pfns - first) {
    fault->pfn = first;
    return fault->raise("GUEST_MEMORY_UNREADABLE", "pfns beyond the domain");
  }
  const uint64_t* from = entries_.as<uint64_t>() + first;
  for (uint32_t i = 0; i < n; i++) entries[i] = __atomic_load_n(from + i, __ATOMIC_RELAXED);
  return true;
}

void EmbeddedMemory::copy_live(uint64_t mfn, uint8_t* dst) const {
  // Reading a page that was never written would make the system allocate it.
  if (machine_->touched(mfn))
    std::memcpy(dst, machine_->page(mfn), kPageSize);
  else
    std::memset(dst, 0, kPageSize);
}

// The frame may have changed since the caller asked: the page is read where it is now.
bool EmbeddedMemory::copy_current(uint64_t pfn, uint8_t* dst) const {
  if (pfn >= options_.nr_pfns) return false;
  const uint64_t* word = entries_.as<uint64_t>() + pfn;
  uint64_t mfn = host::mfn_of(__atomic_load_n(word, __ATOMIC_ACQUIRE));
  for (;;) {
    if (mfn >= machine_->fds().frames) return false;
    copy_live(mfn, dst);
    std::atomic_thread_fence(std::memory_order_acquire);
    const uint64_t now = host::mfn_of(__atomic_load_n(word, __ATOMIC_ACQUIRE));
    if (now == mfn) return true;
    mfn = now;
  }
}

// Waits for a writer that is copying; false if it does not come to an end (its host died).
bool EmbeddedMemory::copy_slot(uint64_t mfn, uint8_t* dst) const {
  constexpr time_t kPatienceSeconds = 10;
  timespec began{}, now{};
  clock_gettime(CLOCK_MONOTONIC, &began);
  for (;;) {
    const uint64_t word = machine_->cow_word(mfn).load(std::memory_order_acquire);
    if (CowWord::state(word, options_.epoch) == CowWord::kSlot) {
      const uint32_t slot = CowWord::slot(word);
      if (slot == CowWord::kZeroSlot) {
        std::memset(dst, 0, kPageSize);
      } else if (slot < options_.nr_pfns) {
        std::memcpy(dst, cow_.data() + slot * kPageSize, kPageSize);
      } else {
        return false;
      }
      return true;
    }
    if (CowWord::state(word, options_.epoch) != CowWord::kCopying) return false;
    sched_yield();
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (now.tv_sec - began.tv_sec > kPatienceSeconds) return false;
  }
}

bool EmbeddedMemory::copy_frozen(uint64_t mfn, uint8_t* dst) const {
  std::atomic<uint64_t>& state = machine_->cow_word(mfn);
  uint64_t word = state.load(std::memory_order_acquire);
  // A word of a later epoch: this snapshot was dropped.
  if (word >> 34 > options_.epoch) return false;
  switch (CowWord::state(word, options_.epoch)) {
    case CowWord::kDone:
      return false;  // read once already: what is there now may be newer
    case CowWord::kCopying:
    case CowWord::kSlot:
      return copy_slot(mfn, dst);
    case CowWord::kFree:
      break;
  }
  copy_live(mfn, dst);
  if (options_.consume) {
    if (state.compare_exchange_strong(word, CowWord::make(options_.epoch, CowWord::kDone)))
      return true;
  } else {
    std::atomic_thread_fence(std::memory_order_acquire);
    if (state.load(std::memory_order_acquire) == word) return true;
  }
  return copy_slot(mfn, dst);
}

bool EmbeddedMemory::copy_out(const uint64_t* pfns, const uint64_t* entries, uint32_t n,
                              uint8_t* dst, Fault* fault) {
  // The first lines of a page, until the processor sees the sequence by itself.
  constexpr uint32_t kAhead = 4, kLines = 8;
  const bool frozen = options_.kind == ViewKind::snapshot;
  const uint64_t frames = machine_->fds().frames;
  for (uint32_t i = 0; i < n; i++) {
    if (i + kAhead < n) {
      const uint64_t next = host::mfn_of(entries[i + kAhead]);
      if (next < frames) {
        for (uint32_t line = 0; line < kLines; line++)
          __builtin_prefetch(machine_->page(next) + line * 64);
        if (frozen) __builtin_prefetch(&machine_->cow_word(next));
      }
    }
    const uint64_t mfn = host::mfn_of(entries[i]);
    uint8_t* page = dst + i * kPageSize;
    if (frozen ? mfn < frames && copy_frozen(mfn, page) : copy_current(pfns[i], page)) continue;
    fault->pfn = pfns[i];
    return fault->raise(
        "GUEST_MEMORY_UNREADABLE",
        mfn >= frames ? "the page has no frame" : "the page of the snapshot can no longer be read");
  }
  return true;
}

const uint8_t* EmbeddedMemory::peek(uint64_t, uint64_t entry) {
  alignas(64) static const uint8_t kBlankPage[kPageSize] = {};
  const uint64_t mfn = host::mfn_of(entry);
  const bool rewrite = options_.kind == ViewKind::rewrite;
  if ((options_.kind != ViewKind::live && !rewrite) || mfn >= machine_->fds().frames)
    return nullptr;
  if (!machine_->touched(mfn)) return kBlankPage;
  // By the mapping that a write goes through, so that it need not wait for the system then.
  return rewrite ? machine_->writable_page(mfn) : machine_->page(mfn);
}

bool EmbeddedMemory::copy_in(const uint64_t* pfns, uint32_t n, const uint8_t* src, Fault* fault) {
  if (!is_writable())
    return fault->raise("DOMAIN_WRONG_STATE", "this view of the domain's memory is read-only");
  // Writing through the file is the cheaper way to a page that was never touched, but one thread at
  // a time may: another one takes a page fault instead of waiting for its turn.
  std::unique_lock<std::mutex> turn(machine_->file_turn, std::try_to_lock);
  for (uint32_t i = 0; i < n; i++) {
    fault->pfn = pfns[i];
    if (pfns[i] >= options_.nr_pfns) return fault->raise("RESTORE_FAILED", "pfn beyond the domain");
    const uint64_t mfn =
        host::mfn_of(__atomic_load_n(entries_.as<uint64_t>() + pfns[i], __ATOMIC_RELAXED));
    if (mfn >= machine_->fds().frames)
      return fault->raise("RESTORE_FAILED", "the page has no frame");
    machine_->write(mfn, src + i * kPageSize, turn.owns_lock());
  }
  fault->pfn = Fault::kNowhere;
  return true;
}

}  // namespace dormouse::embedded
