// LZ4 blocks with exact sizes on both sides. A lane keeps one state, so that no call allocates.
#pragma once
#include <cstdint>
#include <memory>

namespace dormouse::codec {

// The largest block either function takes; a cap against hostile sizes.
constexpr uint32_t kLz4MaxBlock = 1u << 24;

// One lane's compression state (16 KiB). Not shared between threads while a call runs.
class Lz4State {
 public:
  Lz4State();
  ~Lz4State();
  Lz4State(const Lz4State&) = delete;
  Lz4State& operator=(const Lz4State&) = delete;

 private:
  friend uint32_t lz4_compress(Lz4State&, const uint8_t*, uint32_t, uint8_t*, uint32_t, int);
  struct Hidden;
  std::unique_ptr<Hidden> hidden_;
};

// The most bytes a block of `bytes` can compress to; 0 above kLz4MaxBlock.
uint32_t lz4_bound(uint32_t bytes);

// Compresses `bytes` of src. Returns the compressed size, or 0 where it does not fit `capacity`
// (the caller then stores the block as it is) or bytes is above kLz4MaxBlock. Acceleration 1 is
// the densest; larger is faster.
uint32_t lz4_compress(Lz4State& state, const uint8_t* src, uint32_t bytes, uint8_t* dst,
                      uint32_t capacity, int acceleration);

// True only where `stored` bytes of src are one valid block of exactly `exact` bytes. Safe for any
// src; never writes beyond dst + exact. On false dst is unspecified.
bool lz4_decompress(const uint8_t* src, uint32_t stored, uint8_t* dst, uint32_t exact);

}  // namespace dormouse::codec
