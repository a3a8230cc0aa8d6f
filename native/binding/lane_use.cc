#include "binding/registry.h"

namespace dormouse::binding {
namespace {

std::mutex in_use_lock;
std::unordered_map<uint64_t, uint64_t>& in_use() {
  static std::unordered_map<uint64_t, uint64_t> lanes_by_handle;
  return lanes_by_handle;
}

uint64_t bit_of(uint32_t lane, uint32_t lanes) {
  if (lane >= lanes || lane > kMaxLanes)
    refuse("lane " + std::to_string(lane) + " of " + std::to_string(lanes));
  return 1ull << lane;
}

}  // namespace

LaneUse::LaneUse(uint64_t handle, uint32_t lane, uint32_t lanes)
    : handle_(handle), lanes_(bit_of(lane, lanes)) {
  take();
}

LaneUse::LaneUse(uint64_t handle) : handle_(handle), lanes_(~0ull) { take(); }

void LaneUse::take() {
  std::lock_guard<std::mutex> hold(in_use_lock);
  uint64_t& lanes = in_use()[handle_];
  need((lanes & lanes_) == 0, "another thread is at work in that lane");
  lanes |= lanes_;
}

LaneUse::~LaneUse() {
  std::lock_guard<std::mutex> hold(in_use_lock);
  const auto at = in_use().find(handle_);
  if ((at->second &= ~lanes_) == 0) in_use().erase(at);
}

}  // namespace dormouse::binding
