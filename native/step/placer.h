// Writes pages of a domain that is being built.
#pragma once
#include "host/host.h"
#include "image/chunk.h"

namespace dormouse::step {

alignas(64) inline constexpr uint8_t kZeroPage[host::kPageSize] = {};

// Collects pages whose bodies lie one after the other, so that most of a chunk is one copy_in.
class Placer {
 public:
  explicit Placer(host::DomainMemory& memory) : memory_(memory) {}
  // Pages written so far.
  uint64_t placed() const { return placed_; }

  bool add(uint64_t pfn, const uint8_t* body, Fault* fault) {
    if (n_ != 0 && (body != start_ + uint64_t(n_) * host::kPageSize || n_ == kMax))
      if (!flush(fault)) return false;
    if (n_ == 0) start_ = body;
    pfns_[n_++] = pfn;
    return true;
  }
  bool flush(Fault* fault) {
    if (n_ == 0) return true;
    const bool good = memory_.copy_in(pfns_, n_, start_, fault);
    placed_ += n_;
    n_ = 0;
    return good;
  }

 private:
  static constexpr uint32_t kMax = image::kMaxChunkBodies;
  host::DomainMemory& memory_;
  uint64_t placed_ = 0;
  uint64_t pfns_[kMax];
  const uint8_t* start_ = nullptr;
  uint32_t n_ = 0;
};

}  // namespace dormouse::step
