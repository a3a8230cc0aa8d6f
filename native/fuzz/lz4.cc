// Decompression of whatever the fuzzer makes, and round trips of it.
#include "codec/lz4.h"

#include "fuzz/input.h"

namespace {

using namespace dormouse;
using fuzz::require;

constexpr uint32_t kMost = 128 * 1024;

void decompress_anything(const uint8_t* data, uint32_t bytes, uint32_t exact) {
  static const fuzz::Fenced plain(kMost), stored(kMost);
  uint8_t* const from = stored.last(bytes);
  std::memcpy(from, data, bytes);
  codec::lz4_decompress(from, bytes, plain.last(exact), exact);
}

void round_trip(const uint8_t* data, uint32_t bytes, uint32_t capacity, int acceleration) {
  static codec::Lz4State state;
  static const fuzz::Fenced stored(2 * kMost), plain(kMost);
  uint8_t* const to = stored.last(capacity);
  const uint32_t made = codec::lz4_compress(state, data, bytes, to, capacity, acceleration);
  require(made <= capacity, "more than the capacity was written");
  require(made > 0 || capacity < codec::lz4_bound(bytes), "no result although there was room");
  if (!made) return;
  uint8_t* const back = plain.last(bytes);
  require(codec::lz4_decompress(to, made, back, bytes), "what was compressed does not decompress");
  require(bytes == 0 || std::memcmp(back, data, bytes) == 0, "it came back otherwise");
  if (bytes) require(!codec::lz4_decompress(to, made, back, bytes - 1), "a wrong size was taken");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  fuzz::Input in(data, bytes);
  const uint32_t size = in.number<uint32_t>() % (kMost + 1);
  const int acceleration = 1 + in.number<uint8_t>() % 64;
  const uint32_t rest = in.left() < kMost ? uint32_t(in.left()) : kMost;
  decompress_anything(in.rest(), rest, size);
  round_trip(in.rest(), rest, size % (codec::lz4_bound(rest) + 1), acceleration);
  round_trip(in.rest(), rest, codec::lz4_bound(rest), acceleration);
  return 0;
}
