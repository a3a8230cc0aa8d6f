#include "image/aligned_bytes.h"

#include <cstdlib>

#include "image/format.h"

namespace dormouse::image {

void FreeAligned::operator()(uint8_t* p) const { std::free(p); }

AlignedBytes allocate_aligned(uint64_t bytes) {
  return AlignedBytes(static_cast<uint8_t*>(std::aligned_alloc(kPageBytes, whole_pages(bytes))));
}

}  // namespace dormouse::image
