// Writes one image. Several lanes (one per concurrent step) encode at once and put full segments at
// reserved offsets. src/image/writer.ts lays down header, manifest and footer, and fetches chunk
// table and page map from here.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "fault.h"
#include "image/chunk.h"

namespace dormouse::image {

class Writer {
 public:
  virtual ~Writer() = default;
  // Takes any number of pages (descs without a body and with one mixed); bodies holds the pages
  // with a body, in order, n_bodies of them. Both are free for reuse when it returns. A lane is
  // used by one thread at a time. A pfn put again supersedes the earlier copy. After a fault every
  // further call gives the same one. Faults: IMAGE_WRITE_FAILED with sys_errno, NO_SPACE,
  // ACCOUNTING_MISMATCH (pfn out of range, class not of its type, bodies that do not add up).
  virtual bool append(uint32_t lane, const uint64_t* descs, uint32_t n_pages, const uint8_t* bodies,
                      uint32_t n_bodies, Fault* fault) = 0;
  // A step is done: the next one may put the same pages again through another lane, and is then
  // the one that counts. Faults: as append.
  virtual bool end_step(uint32_t lane, Fault* fault) {
    (void)lane, (void)fault;
    return true;
  }
  virtual uint32_t lanes() const = 0;
};

}  // namespace dormouse::image
