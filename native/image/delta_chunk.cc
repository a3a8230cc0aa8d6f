#include "image/delta_chunk.h"

#include <algorithm>
#include <cstring>

namespace dormouse::image {

bool DeltaChunk::allocate() {
  payload_ = allocate_aligned(uint64_t(kMaxChunkBodies) * kMostBytes);
  return payload_ != nullptr;
}

bool DeltaChunk::add(uint64_t desc, const uint8_t* body, uint32_t most) {
  uint8_t* const at = payload_.get() + payload_bytes_;
  DeltaBase base;
  const uint32_t size =
      use_.pages->code(codec_, use_.images, desc, body, at, std::min(most, kMostBytes), &base);
  if (size == 0) return false;
  payload_bytes_ += size;
  lengths_[pages_] = size;
  bases_[pages_++] = base;
  if (runs_ && desc == run_[runs_ - 1].desc + run_[runs_ - 1].count)
    run_[runs_ - 1].count++;
  else
    run_[runs_++] = {desc, 1};
  page_hashes.push_back(pfn::hash128(body, kPageBytes));
  ages_.fetch_or(1u << (base.age - 1), std::memory_order_relaxed);
  return true;
}

uint32_t DeltaChunk::span() const {
  const uint64_t tables = pages_ * (sizeof lengths_[0] + sizeof bases_[0]) + runs_ * sizeof run_[0];
  return uint32_t(whole_pages(sizeof(ChunkHeader) + payload_bytes_ + tables));
}

ChunkHeader DeltaChunk::close(uint8_t* out) {
  ChunkHeader h = {};
  h.magic = kChunkMagic;
  h.kind = kChunkDeltas;
  h.codec = kCodecLz4;
  h.header_size = sizeof h;
  h.pages = h.bodies = h.blocks = uint16_t(pages_);
  h.runs = uint16_t(runs_);
  h.payload_size = payload_bytes_;
  h.span = span();
  uint8_t* to = out + sizeof h;
  const auto put = [&to](const void* from, size_t bytes) {
    std::memcpy(to, from, bytes);
    to += bytes;
  };
  put(payload_.get(), payload_bytes_);
  put(lengths_, pages_ * sizeof lengths_[0]);
  put(run_, runs_ * sizeof run_[0]);
  put(bases_, pages_ * sizeof bases_[0]);
  std::memset(to, 0, size_t(out + h.span - to));
  std::memcpy(out, &h, sizeof h);
  payload_bytes_ = pages_ = runs_ = 0;
  return h;
}

}  // namespace dormouse::image
