// The digest of a domain's memory: equal for any two domains or images with the same canonical
// pages and page types, whatever their machine frames.
#pragma once
#include <mutex>
#include <vector>

#include "host/host.h"
#include "image/page_map.h"
#include "image/reader.h"
#include "pfn/page_scan.h"

namespace dormouse::step {

// Hash and type of every pfn, filled in any order; finish() is the digest over all of them, as runs
// of equal ones. Of a domain it takes memory by the pfn, of an image by its pages and runs.
class DigestTable {
 public:
  // Of a domain: every pfn is without a frame until it is set.
  explicit DigestTable(uint64_t nr_pfns);
  // Of an image: pages without a body are what the map says.
  explicit DigestTable(const image::ReaderMap& map);
  uint64_t nr_pfns() const { return nr_pfns_; }
  // Page null: no content. Thread-safe on different pfns.
  void set(uint64_t pfn, uint8_t type, const uint8_t* page);
  // A page whose content holds MFNs by design counts by its type only.
  void blank(uint64_t pfn);
  pfn::Hash128 finish();

 private:
  static constexpr uint64_t kBlank = ~0ull;
  struct Entry {
    pfn::Hash128 hash;
    uint8_t type;
  };
  // Up to the next one: an entry for each pfn from `base` on, or for all of them `blank`.
  struct Span {
    uint64_t first;
    uint64_t base;
    Entry blank;
  };
  // What one page of a blank span is made all the same, one after the other.
  struct Patch {
    uint64_t pfn;
    bool blanks;
    Entry entry;
  };
  class Feed;

  const Span& span_of(uint64_t pfn) const;
  void add_patch(const Patch& patch);
  void feed_blanks(const Span& span, uint64_t end, size_t* patch, Feed* feed) const;

  uint64_t nr_pfns_;
  std::vector<Span> spans_;
  std::vector<pfn::Hash128> hashes_;
  std::vector<uint8_t> types_;
  std::mutex patch_lock_;
  std::vector<Patch> patches_;
};

bool digest_domain_step(host::DomainMemory& memory, DigestTable& table, uint64_t first,
                        uint64_t count, Fault* fault);
// Chunks [first, first + count) of an image.
bool digest_image_step(image::Reader& reader, DigestTable& table, uint32_t lane, uint32_t first,
                       uint32_t count, Fault* fault);

}  // namespace dormouse::step
