#include "codec/lz4.h"

#include <lz4.h>

namespace dormouse::codec {

// LZ4_decompress_safe before 1.9.2 could read out of bounds on hostile input.
static_assert(LZ4_VERSION_NUMBER >= 10902, "LZ4 1.9.2 or newer is needed");
static_assert(kLz4MaxBlock <= LZ4_MAX_INPUT_SIZE, "block sizes must fit LZ4's int arguments");

struct Lz4State::Hidden {
  LZ4_stream_t stream;
};

Lz4State::Lz4State() : hidden_(new Hidden) {
  // fastReset wants a state that was initialised once; it stays correct from call to call.
  LZ4_initStream(&hidden_->stream, sizeof hidden_->stream);
}
Lz4State::~Lz4State() = default;

uint32_t lz4_bound(uint32_t bytes) {
  return bytes > kLz4MaxBlock ? 0 : uint32_t(LZ4_compressBound(int(bytes)));
}

uint32_t lz4_compress(Lz4State& state, const uint8_t* src, uint32_t bytes, uint8_t* dst,
                      uint32_t capacity, int acceleration) {
  if (bytes > kLz4MaxBlock || capacity == 0) return 0;
  const uint32_t most = lz4_bound(kLz4MaxBlock);
  const int room = int(capacity < most ? capacity : most);
  const int stored = LZ4_compress_fast_extState_fastReset(
      &state.hidden_->stream, reinterpret_cast<const char*>(src), reinterpret_cast<char*>(dst),
      int(bytes), room, acceleration);
  return stored > 0 ? uint32_t(stored) : 0;
}

bool lz4_decompress(const uint8_t* src, uint32_t stored, uint8_t* dst, uint32_t exact) {
  // A negative capacity is undefined in LZ4, and no honest block of `exact` bytes is above the
  // bound.
  if (exact > kLz4MaxBlock || stored == 0 || stored > lz4_bound(exact)) return false;
  const int made = LZ4_decompress_safe(reinterpret_cast<const char*>(src),
                                       reinterpret_cast<char*>(dst), int(stored), int(exact));
  return made == int(exact);
}

}  // namespace dormouse::codec
