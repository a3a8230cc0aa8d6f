#include "image/block_coder.h"

#include <chrono>
#include <cstring>

namespace dormouse::image {

namespace {

// Of LZ4. 2 was no faster over programs, text and page tables, for 3 % more bytes.
constexpr int kAcceleration = 1;

}  // namespace

// 0 where the block is to be stored as it is: LZ4 does not gain about 2 %, and decoding it would
// cost more than reading it.
uint32_t BlockCoder::compress(const uint8_t* pages, uint32_t raw, uint8_t* to) {
  using Clock = std::chrono::steady_clock;
  if (how_ == Compression::none) return 0;
  const bool measured = how_ == Compression::automatic;
  if (measured && !gain_.worth_trying()) return 0;
  const auto began = measured ? Clock::now() : Clock::time_point();
  const uint32_t size = codec::lz4_compress(lz4_, pages, raw, to, raw - raw / 50, kAcceleration);
  if (measured) {
    const std::chrono::nanoseconds took = Clock::now() - began;
    gain_.tried(size ? raw - size : 0, uint64_t(took.count()));
  }
  return size;
}

uint32_t BlockCoder::encode(const uint8_t* pages, uint32_t n, uint8_t* to, uint32_t* length) {
  const uint32_t raw = n * kPageBytes;
  const uint32_t size = compress(pages, raw, to);
  if (size) {
    *length = size;
    return size;
  }
  std::memcpy(to, pages, raw);
  *length = raw | kStoredFlag;
  return raw;
}

}  // namespace dormouse::image
