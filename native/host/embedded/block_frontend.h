// A guest's block driver, as Linux's xen-blkfront: it puts requests into the ring, remembers each
// until it has its answer, and in a new domain asks again for all that it has no answer to. What it
// knows is in guest memory; its code runs as a vCPU does, in a step or while the domain is held.
#pragma once
#include <cstdint>

#include "host/embedded/blkif.h"
#include "host/embedded/domain.h"

namespace dormouse::embedded {

class BlockFrontend {
 public:
  static constexpr uint32_t kMaxSegments = 4;  // whole pages

  BlockFrontend(Vcpu& cpu, const GuestText& text, uint32_t disk)
      : cpu_(cpu), text_(text), disk_(disk), lock_(cpu.domain.disks[disk]->front_lock) {}

  struct Seen {
    uint32_t state, ring_ref;
  };
  // What the driver of a domain that stands still has in memory.
  static Seen look(const Domain& domain, uint32_t disk);
  static bool any_connected(const Domain& domain);

  // Meets a device: an empty ring, and in it what was asked before and not answered. False where it
  // was closed for good, or after a fault.
  bool connect();
  // One step towards the end of the device; true once it is closed and nothing is left of it.
  bool close();

  struct Wanted {
    BlkOperation operation;
    uint64_t sector;
    uint32_t pages;
    uint64_t pfns[kMaxSegments];
  };
  // Puts a request into the ring and says by what it is known; false if the ring is full.
  bool submit(const Wanted& wanted, uint32_t* id);
  // Whether it was answered, and how; what was is forgotten.
  bool answered(uint32_t id, int16_t* status);
  uint64_t sectors();

 private:
  struct Shadow {
    uint8_t used, done;
    int16_t status;
    uint32_t operation;
    uint64_t sector;
    uint32_t pages, pad;
    uint64_t pfns[kMaxSegments];
  };
  struct Page {
    uint32_t state, ring_ref;
    uint32_t req_prod, rsp_cons;
    uint64_t sectors, pad;
    Shadow shadow[kRingEntries];
  };
  static_assert(sizeof(Page) <= 4096);

  static uint64_t page_pfn(const GuestText& text, uint32_t disk) {
    return text.disk_pfn + 2ull * disk;
  }
  const Page* read_page();
  Page* write_page();
  BlkRing* ring();
  uint32_t ring_grant() const { return 8 + disk_; }
  uint32_t grant_of(uint32_t id, uint32_t segment) const;
  bool set_grant(uint32_t gref, uint64_t pfn, uint16_t flags);
  bool put(uint32_t id, Page* page, BlkRing* ring);
  void push(Page* page, BlkRing* ring);
  bool collect();
  bool wipe();

  Vcpu& cpu_;
  const GuestText& text_;
  const uint32_t disk_;
  std::lock_guard<std::mutex> lock_;
};

}  // namespace dormouse::embedded
