// Memory at a multiple of 4096, as direct I/O wants it.
#pragma once
#include <cstdint>
#include <memory>

namespace dormouse::image {

struct FreeAligned {
  void operator()(uint8_t* p) const;
};
using AlignedBytes = std::unique_ptr<uint8_t, FreeAligned>;
// Null where there is no memory. What it holds is not cleared.
AlignedBytes allocate_aligned(uint64_t bytes);

}  // namespace dormouse::image
