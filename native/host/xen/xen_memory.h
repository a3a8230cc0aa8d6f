// A domain's memory on real Xen: every frame mapped once, read-only, and kept. What moved since is
// found by comparing with the guest's own p2m (PV) or by Xen's page count (PVH, HVM).
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "host/host.h"
#include "host/xen/guest_p2m.h"
#include "host/xen/handles.h"

namespace dormouse::xen {

class XenMemory : public host::DomainMemory {
 public:
  static std::shared_ptr<XenMemory> open(std::shared_ptr<Handles> xen, uint32_t domid,
                                         Fault* fault);

  // Brings the mapping up to date: between epochs, and after the guest was stopped. No other call
  // may be under way, and pointers from maps() are to be fetched again.
  bool refresh(Fault* fault);

  uint64_t nr_pfns() const override { return nr_pfns_; }
  // Null for a domain without page tables in Xen's form.
  const GuestP2m* p2m() const { return p2m_.get(); }

  host::FrameMaps maps() const override;
  bool query(uint64_t first, uint32_t n, uint64_t* entries, Fault* fault) override;
  uint64_t next_present(uint64_t pfn) const override;
  bool knows_holes() const override { return !p2m_ && holes_hold_; }
  bool copy_out(const uint64_t* pfns, const uint64_t* entries, uint32_t n, uint8_t* dst,
                Fault* fault) override;
  const uint8_t* peek(uint64_t pfn, uint64_t entry) override;
  bool copy_in(const uint64_t* pfns, uint32_t n, const uint8_t* src, Fault* fault) override;
  bool populate_gives_zeroes() const override { return false; }

 private:
  // A stretch of the pfn space in one mapping, which begins at its first populated pfn. Pfns
  // without a frame inside it show another page of the chunk and are never read.
  struct Chunk {
    ForeignPages pages;
    uint64_t first = 0;
    uint32_t remapped = 0;  // pfns of it that are now mapped on their own
  };
  enum State : uint8_t { kUnmapped, kInChunk, kAlone };

  XenMemory(std::shared_ptr<Handles> xen, uint32_t domid) : xen_(std::move(xen)), domid_(domid) {}
  bool map_all(Fault* fault);
  bool resize(uint64_t nr_pfns, Fault* fault);
  bool find_populated(Fault* fault);
  bool in_hole(uint64_t first, uint32_t n) const {
    return knows_holes() && next_present(first) >= first + n;
  }
  bool map_chunk(uint64_t index, Fault* fault);
  void follow_p2m(uint64_t first, uint32_t n);
  void drop_page(uint64_t pfn);
  const uint8_t* map_alone(uint64_t pfn);
  const uint8_t* page(uint64_t pfn);
  bool types(const uint64_t* frames, uint32_t n, uint8_t* out, Fault* fault);
  bool sample_pages(uint64_t* total, Fault* fault) const;

  std::shared_ptr<Handles> xen_;
  uint32_t domid_;
  uint64_t nr_pfns_ = 0;
  uint64_t total_pages_ = 0;  // Xen's count when the mapping was made
  std::unique_ptr<GuestP2m> p2m_;
  std::vector<uint64_t> frames_;  // private p2m (PV): what is mapped at each pfn
  std::vector<uint8_t> states_;
  // Translated domains: which stretches of kTypeBatch pfns had frames when all were mapped. It goes
  // on to hold: refresh() sees frames that came, and one that went ends it, for it may have moved.
  std::vector<bool> inhabited_;
  std::atomic<bool> holes_hold_{false};
  std::vector<Chunk> chunks_;
  std::mutex alone_lock_;
  std::unordered_map<uint64_t, ForeignPages> alone_;
  std::mutex buffers_lock_;
  std::vector<std::unique_ptr<HypercallBuffer>> buffers_;
};

}  // namespace dormouse::xen
