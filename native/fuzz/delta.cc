// Deltas of whatever the fuzzer makes: applied to any base, and there and back.
#include "codec/delta.h"

#include "fuzz/input.h"

namespace {

using namespace dormouse;
using fuzz::require;

constexpr uint32_t kMost = codec::kDeltaMaxBytes;

codec::DeltaState& state() {
  static codec::DeltaState one;
  return one;
}

// A base as an older page is: what it became, but for some bytes.
void make_base(const uint8_t* now, uint32_t bytes, uint32_t every, uint8_t* base) {
  if (bytes) std::memcpy(base, now, bytes);
  for (uint32_t i = 0; i < bytes; i += every) base[i]++;
}

// What the pages hold before.
const uint8_t* base_of(uint32_t bytes) {
  static uint8_t base[2 * kMost];
  if (base[1] == 0)
    for (uint32_t i = 0; i < sizeof base; i++) base[i] = uint8_t(i * 7);
  return base + sizeof base - bytes;
}

void apply_anything(const uint8_t* data, uint32_t bytes, uint32_t exact) {
  static const fuzz::Fenced stored(kMost), pages(2 * kMost);
  uint8_t* const from = stored.last(bytes);
  if (bytes) std::memcpy(from, data, bytes);
  uint8_t* const to = pages.last(exact);
  std::memcpy(to, base_of(exact), exact);
  const bool taken = codec::delta_apply(state(), from, bytes, to, exact);
  require(!taken || exact <= kMost, "more than a delta is of");
  require(taken || std::memcmp(base_of(exact), to, exact) == 0,
          "what was refused changed the base");
}

void round_trip(const uint8_t* now, uint32_t bytes, uint32_t every, uint32_t capacity) {
  static const fuzz::Fenced stored(2 * kMost), pages(kMost);
  uint8_t* const base = pages.last(bytes);
  make_base(now, bytes, every, base);
  uint8_t* const to = stored.last(capacity);
  const uint32_t made = codec::delta_compress(state(), now, base, bytes, to, capacity);
  require(made <= capacity, "more than the capacity was written");
  require(made > 0 || capacity < codec::lz4_bound(bytes), "no result although there was room");
  if (!made) return;
  require(bytes == 0 || !codec::delta_apply(state(), to, made, base, bytes - 1), "a wrong size");
  require(codec::delta_apply(state(), to, made, base, bytes), "what was coded is refused");
  require(bytes == 0 || std::memcmp(base, now, bytes) == 0, "it came back otherwise");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  fuzz::Input in(data, bytes);
  const uint32_t size = in.number<uint32_t>() % (kMost + kMost / 16);
  const uint32_t every = 1 + in.number<uint16_t>() % 4096;
  const uint32_t rest = in.left() < kMost ? uint32_t(in.left()) : kMost;
  apply_anything(in.rest(), rest, size);
  round_trip(in.rest(), rest, every, size % (codec::lz4_bound(rest) + 1));
  round_trip(in.rest(), rest, every, codec::lz4_bound(rest));
  return 0;
}
