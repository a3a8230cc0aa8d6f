// Whether compressing is worth its time: what it saves must take longer to write than to compress.
// Where it is not, it is given up for some blocks, for more of them each time, and tried again.
#pragma once
#include <algorithm>
#include <cstdint>

namespace dormouse::image {

class CompressionGain {
 public:
  static constexpr uint32_t kTries = 16;
  static constexpr uint32_t kFirstRest = 64, kLongestRest = 1024;
  // Believed as long as nobody says how fast writing is: 500 MB/s.
  static constexpr double kUsualNsPerByte = 2;

  // Of the next block.
  bool worth_trying() {
    if (resting_ == 0) return true;
    resting_--;
    return false;
  }

  // A block was compressed in that time, and became so much smaller.
  void tried(uint32_t saved_bytes, uint64_t ns) {
    saved_ += saved_bytes;
    spent_ns_ += ns;
    if (++tries_ < kTries) return;
    const bool worth = double(saved_) * ns_per_byte_ > double(spent_ns_);
    resting_ = worth ? 0 : rest_;
    rest_ = worth ? kFirstRest : std::min(rest_ * 2, kLongestRest);
    saved_ = spent_ns_ = tries_ = 0;
  }

  // The disk took that many bytes in that time.
  void wrote(uint64_t bytes, uint64_t ns) { ns_per_byte_ = double(ns) / double(bytes); }

 private:
  double ns_per_byte_ = kUsualNsPerByte;
  uint64_t saved_ = 0, spent_ns_ = 0;
  uint32_t tries_ = 0;
  uint32_t resting_ = 0;
  uint32_t rest_ = kFirstRest;
};

}  // namespace dormouse::image
