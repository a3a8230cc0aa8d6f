// What the functions of the steps share:
// native/binding/{step,step_memory,step_live,step_rewind,step_diff,step_export}.cc.
#pragma once
#include <vector>

#include "binding/registry.h"
#include "image/format.h"
#include "image/image_reader.h"
#include "step/pieces.h"

namespace dormouse::binding {

// Each adds its functions to the addon's `step`.
void add_memory_steps(Napi::Object out);
void add_live_steps(Napi::Object out);
void add_rewind_steps(Napi::Object out);
void add_diff_steps(Napi::Object out);
void add_export_steps(Napi::Object out);

// What a step puts through a writer's lane, or takes through a reader's.
inline LaneUse lane_of(const Napi::CallbackInfo& info, size_t object, size_t lane, uint32_t lanes) {
  return LaneUse(arg_u64(info, object), arg_u32(info, lane), lanes);
}

inline std::shared_ptr<image::ImageReader> arg_image(const Napi::CallbackInfo& info, size_t i) {
  auto reader = std::dynamic_pointer_cast<image::ImageReader>(held<image::Reader>(info, i));
  need(reader != nullptr, "no reader of an image");
  return reader;
}

inline uint64_t arg_nr_pfns(const Napi::CallbackInfo& info, size_t i) {
  const uint64_t nr_pfns = arg_u64(info, i);
  need(nr_pfns >= 1 && nr_pfns <= image::kMaxPfns, "no size of a pfn space");
  return nr_pfns;
}

inline Napi::Value by_class(Napi::Env env, const uint64_t counts[16]) {
  Napi::Array out = Napi::Array::New(env, 16);
  for (uint32_t i = 0; i < 16; ++i) out.Set(i, num(env, counts[i]));
  return out;
}

// [first, count][]
inline Napi::Value pieces_value(Napi::Env env, const std::vector<step::Piece>& pieces) {
  Napi::Array out = Napi::Array::New(env, pieces.size());
  for (uint32_t i = 0; i < pieces.size(); ++i) {
    Napi::Array piece = Napi::Array::New(env, 2);
    piece.Set(0u, num(env, pieces[i].first));
    piece.Set(1u, num(env, pieces[i].count));
    out.Set(i, piece);
  }
  return out;
}

}  // namespace dormouse::binding
