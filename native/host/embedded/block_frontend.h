// A guest's block driver, as Linux's xen-blkfront: it puts requests into the ring, remembers each
// until it has its answer, and in a new domain asks again for all that it has no answer to.
#pragma once
#include <cstdint>

#include "host/embedded/blkif.h"
#include "host/embedded/frontend.h"

namespace dormouse::embedded {

class BlockFrontend : Frontend {
 public:
  static constexpr uint32_t kMaxSegments = 4;  // whole pages

  BlockFrontend(Vcpu& cpu, const GuestText& text, uint32_t disk)
      : Frontend(cpu, text, *cpu.domain.disks[disk]), disk_(disk) {}

  static FrontendSeen look(const Domain& domain, uint32_t disk);

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
  const Page* read_page() { return to_read<Page>(page_pfn(text_, disk_)); }
  Page* write_page() { return to_write<Page>(page_pfn(text_, disk_)); }
  BlkRing* ring() { return to_write<BlkRing>(page_pfn(text_, disk_) + 1); }
  uint32_t ring_grant() const { return 8 + disk_; }
  uint32_t grant_of(uint32_t id, uint32_t segment) const;
  bool put(uint32_t id, Page* page, BlkRing* ring);
  bool collect();
  bool wipe();

  const uint32_t disk_;
};

}  // namespace dormouse::embedded
