// One domain: its pfn space, frames, page types, vCPUs, and what tracks its writes.
//
// Threads: toolstack calls come from one thread (the host's event loop); vCPU threads make
// hypercalls. `mmu` guards p2m, types, frames and the p2m change list. Stopping is in sched.cc.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "host/embedded/block_device.h"
#include "host/embedded/guest_text.h"
#include "host/embedded/machine.h"
#include "host/embedded/network_device.h"
#include "host/embedded/vcpu.h"
#include "host/embedded/xen_layout.h"

namespace dormouse::embedded {

enum class DomainType : uint8_t { pv, pvh };

struct Geometry {
  uint64_t nr_pfns = 0;
  uint32_t guest_width = 0;
  std::vector<uint64_t> p2m_frames;
  uint64_t p2m_generation = 0;
};

struct PfnRun {
  uint64_t first, count;
};

// What of a domain is to be another, when it is rewritten: frames that come and go, page tables
// that may be written, pins that go. What is not named stays as it is.
struct RewritePart {
  Geometry geometry;
  std::vector<PfnRun> gained, lost;
  std::vector<uint64_t> tables, unpinned;
};

struct PinnedTable {
  uint64_t pfn;
  int level;
};

class Domain {
 public:
  Domain(Machine& machine, uint16_t domid, DomainType type, uint32_t vcpus, uint64_t max_pages);
  ~Domain();

  // --- the pfn space (domain.cc)
  bool init(Fault* fault);
  bool set_geometry(Geometry geometry, Fault* fault);
  // Gives these pfns a frame; of a domain that is rewritten, also takes those of all others away.
  bool populate(const std::vector<PfnRun>& runs, Fault* fault);
  // Takes frames away, as if the guest gave them back; pfns without one are passed over.
  void depopulate(const PfnRun& run);
  // Makes a domain that stands still ready to be filled anew in place (rewrite.cc); until finish()
  // it does not run. May be called again before that.
  bool begin_rewrite(Fault* fault);
  // The same for a part of it, in time that goes by what is named and not by memory. On a fault
  // nothing was done.
  bool begin_rewrite(RewritePart part, Fault* fault);
  // Takes the tables of the part again and pins these. Then the state may be set.
  bool take_tables(const std::vector<PinnedTable>& pins, Fault* fault);
  // finish() of a rewritten domain that goes on as the same one: its suspend call says "cancelled".
  bool finish_in_place(Fault* fault);
  uint64_t entry(uint64_t pfn) const { return meta_words()[pfn].load(std::memory_order_relaxed); }
  bool has_frame(uint64_t pfn) const { return pfn < nr_pfns && host::mfn_of(entry(pfn)) != kNoMfn; }
  uint64_t mfn(uint64_t pfn) const { return host::mfn_of(entry(pfn)); }
  SharedInfo& shared_info() const {
    return *reinterpret_cast<SharedInfo*>(machine.page(shared_info_mfn));
  }
  // The guest's p2m as it published it, else as the builder said.
  Geometry geometry() const;
  uint64_t frames_owned() const { return owned.load(std::memory_order_relaxed); }

  // With `mmu` held: gives a pfn its frame, or takes it away (the frame is freed when it is safe).
  void attach_frame(uint64_t pfn, uint64_t mfn);
  void detach_frame(uint64_t pfn);
  // What may happen to an entry, as bits of `unlogged`.
  enum Change : uint8_t { kGained = 1, kLost = 2, kRetyped = 4, kGranted = 8 };
  void set_entry(uint64_t pfn, uint64_t entry, Change change);
  void set_entry_type(uint64_t mfn, uint8_t nibble);
  // With `mmu` held: frees frames taken away which no vCPU and no snapshot can reach any more.
  void reclaim();

  // --- before a write: whoever stores to a frame calls this first (write_track.cc)
  void before_write(uint64_t mfn, bool logged = true);
  void mark_dirty(uint64_t pfn) {
    if (!dirty_on.load(std::memory_order_relaxed)) return;
    std::atomic<uint64_t>& word = dirty_words[pfn >> 6];
    const uint64_t bit = 1ull << (pfn & 63);
    // Most are marked already, and to look is cheaper than to mark.
    if (!(word.load(std::memory_order_relaxed) & bit))
      word.fetch_or(bit, std::memory_order_relaxed);
  }
  void log_dirty_on();
  void log_dirty_off();
  // Without `clear` with the pages that backends may write to yet, or have past the log.
  void log_dirty_read(bool clear, uint8_t* bitmap);
  uint64_t bitmap_bytes() const { return (nr_pfns + 7) / 8; }

  // --- devices (devices.cc)
  bool add_disk(DiskOptions options, Fault* fault);
  bool add_network(NetworkOptions options, Fault* fault);
  // The backends of its disks, then of its networks.
  std::vector<Backend*> backends() const;
  // Asks all backends to close; true once all have.
  bool detach_devices();
  // Has the backends serve the frontends that were connected, as the guest's memory has them.
  bool attach_devices(Fault* fault);
  // Of a guest that is new in this domain: its frontends connect.
  bool connect_devices(Fault* fault);

  // --- snapshots (snapshot.cc)
  bool snapshot(struct SnapshotState* out, Fault* fault);
  bool release_snapshot(uint64_t epoch);
  uint64_t cow_pages() const;
  // Waits until the copies of the last snapshot are given back to the system.
  void finish_cow_clean_up();

  // --- stopping and going on (sched.cc); nested, from the toolstack's thread only
  void hold();
  void release();
  bool held() const { return stop_requests.load() != 0; }
  void stop_threads();
  // Wakes vCPUs that block, so that they look at their state again.
  void kick();
  // From a vCPU's thread: the guest ends itself.
  void guest_shutdown(int reason, const std::string& text);
  void finish_shutdown_if_still();

  // --- toolstack calls on run state (control.cc)
  bool finish(Fault* fault);
  void pause();
  bool unpause(Fault* fault);
  void shutdown_request(int reason);
  bool shutdown_cancel();
  bool resume_in_place(Fault* fault);
  bool set_vcpu(uint32_t vcpu, const VcpuContext& context, Fault* fault);
  // Reads the guest's text page through vCPU 0; false if it has none of ours.
  bool recognise_guest();

  std::atomic<uint64_t>* meta_words() const { return meta.as<std::atomic<uint64_t>>(); }

  Machine& machine;
  const uint16_t domid;
  const DomainType type;
  const uint64_t max_pages;
  uint64_t nr_pfns = 0;
  uint64_t shared_info_mfn = 0;
  Geometry built_geometry;
  uint64_t built_generation = 0;  // shared_info's p2m_generation when the builder finished
  SharedArray meta, meta_snap, cow_store;
  std::atomic<uint64_t> owned{0};

  // Held by who changes memory or shared info from beside the vCPUs; taken before `mmu`.
  std::mutex io_lock;
  std::mutex mmu;
  std::vector<uint32_t> changed_pfns;    // entries changed since meta_snap was last in step
  std::vector<uint64_t> changed_bitmap;  // the same as a set
  bool all_changed = true;
  struct Detached {
    uint32_t mfn;
    uint64_t tlb_generation;
  };
  std::vector<Detached> detached;     // taken from the guest; some vCPU may still be mid-step
  std::vector<uint32_t> quarantined;  // held back because the active snapshot names them
  std::atomic<uint64_t> tlb_generation{1};

  // Bumped, with every vCPU held, whenever a page must be looked at again before it is written.
  std::atomic<uint64_t> write_generation{1};
  std::atomic<uint64_t> cow_epoch{0};
  std::atomic<uint64_t> cow_next{0};
  std::atomic<uint64_t> cow_zero{0};  // copies that needed no slot
  std::thread cow_cleaner;            // gives back the copies of a snapshot that was released
  std::atomic<bool> dirty_on{false};
  // Changes that are left out of the dirty log, as other hosts leave them out.
  std::atomic<uint8_t> unlogged{0};
  std::unique_ptr<std::atomic<uint64_t>[]> dirty_words;

  std::vector<std::unique_ptr<Vcpu>> vcpus;
  std::atomic<uint32_t> stop_requests{1};  // a shell stands still
  std::atomic<uint32_t> acks{0};           // futex: counts vCPUs that parked
  std::atomic<uint32_t> ack_waiters{0};
  std::atomic<bool> exiting{false};
  bool started = false;
  bool building = true;
  bool rewriting = false;          // building, of a domain that ran before
  bool devices_connected = false;  // the guest has met this domain's devices
  std::vector<std::unique_ptr<BlockDevice>> disks;
  std::vector<std::unique_ptr<NetworkDevice>> networks;
  std::vector<uint64_t> lifted;  // frames of tables that are to be taken again
  uint32_t pause_count = 0;
  std::optional<GuestText> guest;
  int wanted_shutdown = -1;  // asked of a guest that cannot answer yet
  std::mutex shutdown_lock;  // guards the next three
  int shutdown_reason = -1;
  std::atomic<bool> shutdown_pending{false};  // asked for, vCPUs not all parked yet
  std::string crash_text;

 private:
  bool open_disks(Fault* fault);
  bool has_devices_of(const GuestText& text, Fault* fault) const;
  bool any_frontend_serves() const;
  void attach_networks();
  void read_log(bool clear, uint8_t* bitmap);
  void log_granted(uint8_t* bitmap);
  void freeze(struct SnapshotState* out);
  void forget_shutdown();
  void end_vcpus();
  void forget_types();
  bool may_rewrite(Fault* fault) const;
  bool check_part(const RewritePart& part, Fault* fault) const;
  void begin_to_rewrite();
  void log_all();
  bool check_runs(const std::vector<PfnRun>& runs, Fault* fault) const;
  void detach_all_but(const std::vector<PfnRun>& runs);
};

struct SnapshotState {
  uint64_t epoch = 0;
  uint64_t pause_ns = 0;
  Geometry geometry;
  std::vector<VcpuContext> vcpus;
  std::unique_ptr<uint8_t[]> shared_info;
  // The dirty log as of the snapshot, which begins anew there; empty where it is off.
  std::vector<uint8_t> dirty;
};

}  // namespace dormouse::embedded
