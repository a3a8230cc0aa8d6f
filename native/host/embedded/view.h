// The tools' side: one machine's memory mapped into this process, and views of its domains.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

#include "host/embedded/shared_array.h"
#include "host/embedded/shared_layout.h"
#include "host/host.h"

namespace dormouse::embedded {

struct MachineFds {
  int pid = 0;
  uint64_t frames = 0;
  int memory = -1, m2p = -1, states = -1, touched = -1;
};

class MachineMap {
 public:
  bool open(const MachineFds& fds, Fault* fault);
  // Maps the memory writable too, when it is first asked for.
  bool make_writable(Fault* fault);
  // `by_file`: through the file where the page was never touched; one thread at a time may.
  void write(uint64_t mfn, const uint8_t* page, bool by_file);
  std::mutex file_turn;

  const MachineFds& fds() const { return fds_; }
  const uint8_t* page(uint64_t mfn) const { return memory_.data() + mfn * kPageSize; }
  const uint8_t* writable_page(uint64_t mfn) const { return memory_rw_.data() + mfn * kPageSize; }
  bool touched(uint64_t mfn) const {
    return touched_.as<std::atomic<uint8_t>>()[mfn].load(std::memory_order_acquire) != 0;
  }
  std::atomic<uint64_t>& cow_word(uint64_t mfn) const {
    return states_.as<std::atomic<uint64_t>>()[mfn];
  }
  const uint64_t* m2p() const { return m2p_.as<uint64_t>(); }

 private:
  MachineFds fds_;
  SharedArray memory_, m2p_, states_, touched_;
  std::mutex lock_;
  SharedArray memory_rw_, touched_rw_;
};

enum class ViewKind : uint8_t { live, snapshot, build, rewrite };

struct ViewOptions {
  ViewKind kind = ViewKind::live;
  uint64_t epoch = 0;
  bool consume = false;
  uint64_t nr_pfns = 0;
  int meta = -1, meta_snap = -1, cow = -1;
};

class EmbeddedMemory : public host::DomainMemory {
 public:
  static std::shared_ptr<EmbeddedMemory> open(std::shared_ptr<MachineMap> machine,
                                              const ViewOptions& options, Fault* fault);

  host::FrameMaps maps() const override;
  uint64_t nr_pfns() const override { return options_.nr_pfns; }
  bool query(uint64_t first, uint32_t n, uint64_t* entries, Fault* fault) override;
  bool copy_out(const uint64_t* pfns, const uint64_t* entries, uint32_t n, uint8_t* dst,
                Fault* fault) override;
  const uint8_t* peek(uint64_t pfn, uint64_t entry) override;
  bool copy_in(const uint64_t* pfns, uint32_t n, const uint8_t* src, Fault* fault) override;
  bool populate_gives_zeroes() const override { return options_.kind == ViewKind::build; }
  bool is_writable() const { return options_.kind >= ViewKind::build; }

 private:
  EmbeddedMemory(std::shared_ptr<MachineMap> machine, const ViewOptions& options)
      : machine_(std::move(machine)), options_(options) {}
  void copy_live(uint64_t mfn, uint8_t* dst) const;
  bool copy_current(uint64_t pfn, uint8_t* dst) const;
  bool copy_frozen(uint64_t mfn, uint8_t* dst) const;
  bool copy_slot(uint64_t mfn, uint8_t* dst) const;

  std::shared_ptr<MachineMap> machine_;
  ViewOptions options_;
  SharedArray entries_;  // meta, or meta_snap
  SharedArray cow_;
};

}  // namespace dormouse::embedded
