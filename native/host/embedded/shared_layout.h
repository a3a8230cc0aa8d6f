// What the host's process and the tools share, byte for byte: five arrays in memfds.
//
//   memory   frames of 4096 bytes, by mfn
//   m2p      u64 a frame: the pfn it backs, kNoPfn if none
//   states   u64 a frame: copy-on-write state, see CowWord
//   touched  u8 a frame: 0 = never written since it was handed out, so all zero
//   meta     u64 a pfn of one domain: `mfn | type << 60` as in host/host.h
//
// and per domain `meta_snap` (meta as of the active snapshot) and `cow` (pages copied aside).
#pragma once
#include <cstdint>

#include "host/host.h"

namespace dormouse::embedded {

using host::kNoMfn;
using host::kPageSize;

constexpr uint64_t kNoPfn = ~0ull;
constexpr uint64_t kNoFrame = (uint64_t(host::kXtab) << 60) | kNoMfn;

// The state of a frame in one epoch. A word of another epoch counts as free, so that a new epoch
// needs no reset.
//
// Writer: before its first store free -> copying, copies the page to a slot, publishes slot,
// stores. Reader: copies the page, then free -> done; if that fails the copy may be torn: it waits
// for the slot and reads that. A reader that wants to read again does not mark done but looks once
// more whether the word is still free.
struct CowWord {
  enum State : uint64_t { kFree = 0, kCopying = 1, kSlot = 2, kDone = 3 };
  static constexpr uint32_t kZeroSlot = ~0u;  // the page was all zero; nothing was copied
  static constexpr uint64_t kLastEpoch = (1ull << 30) - 1;

  static constexpr uint64_t make(uint64_t epoch, State state, uint32_t slot = 0) {
    return epoch << 34 | uint64_t(slot) << 2 | state;
  }
  static constexpr State state(uint64_t word, uint64_t epoch) {
    return word >> 34 == epoch ? State(word & 3) : kFree;
  }
  static constexpr uint32_t slot(uint64_t word) { return uint32_t(word >> 2); }
};

}  // namespace dormouse::embedded
