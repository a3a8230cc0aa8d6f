// The digest of a domain's memory: equal for any two domains or images with the same canonical
// pages and page types, whatever their machine frames.
#pragma once
#include <vector>

#include "host/host.h"
#include "image/reader.h"
#include "pfn/page_scan.h"

namespace dormouse::step {

// Hash and type of every pfn, filled in any order; finish() is the digest over all of them.
class DigestTable {
 public:
  explicit DigestTable(uint64_t nr_pfns);
  uint64_t nr_pfns() const { return types_.size(); }
  void set(uint64_t pfn, uint8_t type, const uint8_t* page);  // page null: no content
  void set_hash(uint64_t pfn, uint8_t type, const pfn::Hash128& hash);
  // A page whose content holds MFNs by design counts by its type only.
  void blank(uint64_t pfn);
  pfn::Hash128 finish() const;

 private:
  std::vector<pfn::Hash128> hashes_;
  std::vector<uint8_t> types_;
};

bool digest_domain_step(host::DomainMemory& memory, DigestTable& table, uint64_t first,
                        uint64_t count, Fault* fault);
// Units [first, first + count) of an image, see Reader::blanks().
bool digest_image_step(image::Reader& reader, DigestTable& table, uint32_t lane, uint32_t first,
                       uint32_t count, Fault* fault);

}  // namespace dormouse::step
