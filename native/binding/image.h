#pragma once
#include "binding/registry.h"
#include "binding/task.h"
#include "image/image_reader.h"

namespace dormouse::binding {

void add_image_reader(Napi::Object exports);

// For what no lane may be at work beside.
inline std::shared_ptr<LaneUse> all_lanes(const Napi::CallbackInfo& info) {
  return std::make_shared<LaneUse>(arg_u64(info, 0));
}

inline uint32_t lanes_field(const Napi::Object& options) {
  const uint64_t lanes = field(options, "lanes");
  need(lanes >= 1 && lanes <= kMaxLanes, "no number of lanes");
  return uint32_t(lanes);
}

}  // namespace dormouse::binding
