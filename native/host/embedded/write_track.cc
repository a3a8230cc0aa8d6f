// What happens before a page is written: it is copied aside for an active snapshot and marked in
// the dirty log.
#include <sched.h>

#include <cstring>

#include "host/embedded/domain.h"
#include "host/embedded/grants.h"

namespace dormouse::embedded {

namespace {

// `blank`: the page was never written. Waits for another vCPU that is copying the same page.
void copy_aside(Domain& dom, uint64_t mfn, uint64_t epoch, bool blank) {
  std::atomic<uint64_t>& word = dom.machine.cow_word(mfn);
  uint64_t seen = word.load(std::memory_order_acquire);
  for (;;) {
    const CowWord::State state = CowWord::state(seen, epoch);
    if (state == CowWord::kDone || state == CowWord::kSlot) return;
    if (state == CowWord::kCopying) {
      sched_yield();
      seen = word.load(std::memory_order_acquire);
      continue;
    }
    if (word.compare_exchange_weak(seen, CowWord::make(epoch, CowWord::kCopying))) break;
  }
  uint32_t slot = CowWord::kZeroSlot;
  if (blank) {
    dom.cow_zero.fetch_add(1, std::memory_order_relaxed);
  } else {
    // Only frames the domain had at the snapshot are copied, each once: slots never run out.
    slot = uint32_t(dom.cow_next.fetch_add(1, std::memory_order_relaxed));
    std::memcpy(dom.cow_store.data() + slot * kPageSize, dom.machine.page(mfn), kPageSize);
  }
  word.store(CowWord::make(epoch, CowWord::kSlot, slot), std::memory_order_release);
}

}  // namespace

void Domain::before_write(uint64_t mfn, bool logged) {
  std::atomic<uint8_t>& touched = machine.touched(mfn);
  const bool blank = touched.load(std::memory_order_relaxed) == 0;
  if (blank) touched.store(1, std::memory_order_release);
  if (const uint64_t epoch = cow_epoch.load(std::memory_order_relaxed))
    copy_aside(*this, mfn, epoch, blank);
  const uint64_t pfn = machine.m2p(mfn).load(std::memory_order_relaxed);
  if (logged && pfn < nr_pfns) mark_dirty(pfn);
  std::atomic_thread_fence(std::memory_order_release);
}

uint64_t Domain::cow_pages() const { return cow_next + cow_zero; }

void Domain::log_dirty_on() {
  hold();
  {
    std::lock_guard<std::mutex> io(io_lock);
    dirty_words = std::make_unique<std::atomic<uint64_t>[]>((nr_pfns + 63) / 64);
    dirty_on = true;
  }
  write_generation++;
  release();
}

void Domain::log_dirty_off() {
  hold();
  {
    std::lock_guard<std::mutex> io(io_lock);
    dirty_on = false;
    dirty_words.reset();
  }
  release();
}

void Domain::read_log(bool clear, uint8_t* bitmap) {
  std::memcpy(bitmap, dirty_words.get(), bitmap_bytes());
  if (clear) {
    std::memset(static_cast<void*>(dirty_words.get()), 0, (nr_pfns + 63) / 64 * 8);
    write_generation++;
  }
}

void Domain::log_dirty_read(bool clear, uint8_t* bitmap) {
  hold();
  {
    std::lock_guard<std::mutex> io(io_lock);
    read_log(clear, bitmap);
  }
  if (!clear) log_granted(bitmap);
  release();
}

// Backends write on while the guest stands: what they may write to counts as written.
void Domain::log_granted(uint8_t* bitmap) {
  std::lock_guard<std::mutex> lock(mmu);
  GrantAccess::for_writable(*this,
                            [bitmap](uint64_t pfn) { bitmap[pfn / 8] |= uint8_t(1 << pfn % 8); });
}

}  // namespace dormouse::embedded
