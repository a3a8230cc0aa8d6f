// Writes a domain into an image while it runs, and what changed since once it stands still.
//
// A domain may be written into image after image, each an epoch: what an epoch takes is remembered
// until it is known whether its image came to be.
//
// Nothing is lost: a page is taken out of the pending set before it is read, and is put back when
// the host's log or its content says that it changed, or when it could not be taken as it was (a
// page table in flux, a page that vanished). Only a pass over a guest that stands still empties the
// set for good.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "host/host.h"
#include "image/writer.h"
#include "step/content_tracker.h"
#include "step/dirty_copy.h"
#include "step/pending_set.h"

namespace dormouse::step {

// How a step treats the pages of its range.
enum class PassKind : uint8_t {
  live = 0,      // those that are pending; what cannot be taken as it is stays pending
  seek = 1,      // the same, after looking for changed content
  standing = 2,  // those that are pending; what cannot be taken is a fault
};

struct CaptureHow {
  bool thorough = false;
  // The guest is not at its suspend point and may map pages of the hypervisor's own.
  bool anywhere = false;
  uint64_t max_pages = 0;
  unsigned threads = 1;
};

class LivePass {
 public:
  // Tracks by content (16 bytes a pfn more than page types), or leaves it to the host's log.
  LivePass(uint64_t nr_pfns, bool by_content);
  bool allocate(uint64_t max_copied_pages, Fault* fault) {
    return copy_.allocate(max_copied_pages, fault);
  }
  PendingSet& pending() { return pending_; }
  // Whether the last capture() copied.
  bool copied() const { return copied_; }

  // One image. `whole`: it holds every page, so all are pending; else those that changed since the
  // last one.
  void begin_epoch(bool whole);
  void commit_epoch() { taken_.clear(); }
  // There is no such image: what it took is pending again.
  void abort_epoch();
  DirtyCopy& copy() { return copy_; }
  bool by_content() const { return content_ != nullptr; }

  // One bounded piece of a pass. first and count are multiples of 64 but at the end. Safe from
  // several threads on disjoint ranges. Faults as save_step.
  bool step(host::DomainMemory& memory, image::Writer& writer, uint32_t lane, PassKind kind,
            uint64_t first, uint64_t count, uint64_t counts[16], Fault* fault);

  // Adds the pages of a dirty log, one bit a pfn, and those whose frame changed by it: their bits
  // are set too.
  bool merge_log(host::DomainMemory& memory, uint8_t* bitmap, Fault* fault);
  // Adds every page whose content is not what the image holds; by content only.
  bool find_changed(host::DomainMemory& memory, unsigned threads, Fault* fault);
  // Adds every page whose type is not what the image holds: frames gained and lost, tables made.
  bool find_retyped(host::DomainMemory& memory, Fault* fault);
  // Adds every page that the image holds without a frame though it has one, and though a table of
  // the image maps it.
  bool find_mapped_holes(host::DomainMemory& memory, Fault* fault);
  // Of a guest that stands still, after its log was merged: adds all else that changed
  // (`thorough`: with the pages whose type changed, logged or not) and copies the pending pages if
  // they fit: copied() says whether. They stay pending until they are put.
  bool capture(host::DomainMemory& memory, const CaptureHow& how, Fault* fault);
  // What copying took of the last capture; the rest went into finding what changed.
  uint64_t copying_ns() const { return copying_ns_; }
  // Appends copied pages [first, first + count) to the image; each page once.
  bool put(image::Writer& writer, uint32_t lane, uint64_t first, uint64_t count,
           uint64_t counts[16], Fault* fault);

 private:
  struct Taken;
  bool seek(host::DomainMemory& memory, uint64_t first, uint64_t count, Fault* fault);
  bool read(host::DomainMemory& memory, uint64_t first, uint32_t n, Taken* taken, Fault* fault);
  bool read_bodies(host::DomainMemory& memory, Taken* taken, Fault* fault);
  bool settle_tables(const host::FrameMaps& maps, Taken* taken, Fault* fault);
  void defer(Taken* taken, uint32_t i);
  void keep(Taken* taken);
  void forget(uint64_t pfn);
  void record(uint64_t pfn, uint8_t type, const uint8_t* page);
  void note_mapped(const uint8_t* table);

  PendingSet pending_;
  PendingSet taken_;  // in this epoch
  bool copied_ = false;
  uint64_t copying_ns_ = 0;
  std::unique_ptr<ContentTracker> content_;
  std::vector<uint8_t> types_;                 // of what the image holds
  std::vector<std::atomic<uint64_t>> mapped_;  // bit for each pfn that some table of it maps
  std::vector<uint8_t> found_;                 // bitmap for find_changed
  DirtyCopy copy_;
};

}  // namespace dormouse::step
