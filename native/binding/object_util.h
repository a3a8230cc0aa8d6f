// Reading fields of plain objects that TypeScript passes.
#pragma once
#include <string>

#include "binding/napi_util.h"

namespace dormouse::binding {

// A number field: whole and at most 2^53.
inline uint64_t field(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  DM_ASSERT(value.IsNumber());
  const double number = value.As<Napi::Number>().DoubleValue();
  DM_ASSERT(number >= 0 && number <= 9007199254740992.0 && number == double(uint64_t(number)));
  return uint64_t(number);
}

inline std::string text_field(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  DM_ASSERT(value.IsString());
  return value.As<Napi::String>().Utf8Value();
}

}  // namespace dormouse::binding
