// Pages of a domain, mapped to be written to, a chunk of neighbouring pfns at a time.
#pragma once
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "host/xen/handles.h"

namespace dormouse::xen {

class WritablePages {
 public:
  // `frames`, by pfn, stays its owner's, who holds lock() to change one.
  WritablePages(std::shared_ptr<Handles> xen, uint32_t domid, const std::vector<uint64_t>& frames)
      : xen_(std::move(xen)), domid_(domid), frames_(frames) {}
  // Several threads may copy at a time.
  bool copy_out(const uint64_t* pfns, uint32_t n, uint8_t* dst, Fault* fault);
  bool copy_in(const uint64_t* pfns, uint32_t n, const uint8_t* src, Fault* fault);

  std::mutex& lock() { return lock_; }
  // Its frame is another one; under the lock, or while nobody copies.
  void forget(uint64_t pfn);
  void unmap();

 private:
  // Mapped pages of kChunkPages pfns, and which.
  struct MappedChunk {
    uint64_t number = 0;
    std::shared_ptr<ForeignPages> pages;
  };
  std::shared_ptr<ForeignPages> map_chunk(uint64_t chunk, Fault* fault);
  uint8_t* page(uint64_t pfn, MappedChunk* last, Fault* fault);

  std::shared_ptr<Handles> xen_;
  uint32_t domid_;
  const std::vector<uint64_t>& frames_;
  std::mutex lock_;
  // Mapped at first use, anew once more of its pfns have frames; who copies holds the old one.
  std::unordered_map<uint64_t, std::shared_ptr<ForeignPages>> chunks_;
};

}  // namespace dormouse::xen
