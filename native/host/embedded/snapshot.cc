// Copy-on-write snapshots: the guest stands at its suspend point only while registers and a list of
// changed p2m entries are copied. Nothing in the pause grows with memory.
#include <time.h>

#include <cstring>

#include "host/embedded/domain.h"
#include "host/embedded/guest_kernel.h"

namespace dormouse::embedded {

namespace {

// Of what was copied aside so much stays allocated: who takes snapshot after snapshot would have
// the guest wait for new memory each time.
constexpr uint64_t kKeptBytes = 32ull << 20;

uint64_t now_ns() {
  timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return uint64_t(at.tv_sec) * 1000000000ull + uint64_t(at.tv_nsec);
}

// Brings meta_snap in step with meta. Most of it is done while the guest runs; a second call with
// the guest held copies only what changed in between.
void sync_meta(Domain& dom) {
  std::lock_guard<std::mutex> lock(dom.mmu);
  auto* snap = dom.meta_snap.as<uint64_t>();
  if (dom.all_changed) {
    std::memcpy(snap, dom.meta.data(), dom.nr_pfns * 8);
    dom.all_changed = false;
    return;
  }
  for (const uint32_t pfn : dom.changed_pfns) {
    snap[pfn] = dom.entry(pfn);
    dom.changed_bitmap[pfn >> 6] &= ~(1ull << (pfn & 63));
  }
  dom.changed_pfns.clear();
}

}  // namespace

// With the vCPUs held. Backends are not: what they write before counts in, what they write after is
// copied aside.
void Domain::freeze(SnapshotState* out) {
  std::lock_guard<std::mutex> io(io_lock);
  sync_meta(*this);
  for (size_t i = 0; i < vcpus.size(); i++) out->vcpus[i] = vcpus[i]->context;
  std::memcpy(out->shared_info.get(), &shared_info(), kPageSize);
  if (dirty_on) {
    out->dirty.resize(bitmap_bytes());
    read_log(true, out->dirty.data());
    log_granted(out->dirty.data());
  }
  cow_next = 0;
  cow_zero = 0;
  cow_epoch = out->epoch = machine.next_epoch();
  write_generation++;
}

bool Domain::snapshot(SnapshotState* out, Fault* fault) {
  if (building) return fault->raise("DOMAIN_WRONG_STATE", "the domain is being built");
  if (cow_epoch) return fault->raise("DOMAIN_WRONG_STATE", "a snapshot is active already");
  if (machine.epochs_left() == 0)
    return fault->raise("HOST_LACKS", "this machine has used up its snapshot epochs");
  out->vcpus.resize(vcpus.size());
  out->shared_info = std::make_unique<uint8_t[]>(kPageSize);
  finish_cow_clean_up();
  sync_meta(*this);
  out->geometry = geometry();
  const bool stood_still = held();

  const uint64_t stopped_at = now_ns();
  hold();
  GuestKernel kernel(*this);
  const bool brought = kernel.enter_suspend_point();
  const bool held_rings = GuestKernel::swap_held_rings(*this, true);
  freeze(out);
  if (brought) kernel.leave_suspend_point();
  if (held_rings) GuestKernel::swap_held_rings(*this, false);
  release();
  out->pause_ns = stood_still ? 0 : now_ns() - stopped_at;
  return true;
}

bool Domain::release_snapshot(uint64_t epoch) {
  if (epoch == 0 || cow_epoch != epoch) return false;
  hold();  // no vCPU is in the middle of a copy, and each looks at its translations anew
  std::vector<uint32_t> mfns;
  {
    std::lock_guard<std::mutex> io(io_lock);
    cow_epoch = 0;
    mfns.swap(quarantined);
  }
  release();
  if (!mfns.empty()) machine.free(std::move(mfns));
  // Beside the caller: gigabytes take a while, and the host has other domains to serve.
  finish_cow_clean_up();
  const uint64_t bytes = cow_next * kPageSize;
  if (bytes > kKeptBytes)
    cow_cleaner = std::thread([this, bytes] { cow_store.punch(kKeptBytes, bytes - kKeptBytes); });
  return true;
}

void Domain::finish_cow_clean_up() {
  if (cow_cleaner.joinable()) cow_cleaner.join();
}

}  // namespace dormouse::embedded
