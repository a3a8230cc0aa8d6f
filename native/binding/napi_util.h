// Small helpers shared by the binding files. Arguments are validated in TypeScript and asserted
// here.
#pragma once
#include <napi.h>

#include <cassert>
#include <cstdio>
#include <cstdlib>

#include "fault.h"

// Stays on in release builds: a wrong argument from our own TypeScript is a programming error.
#define DM_ASSERT(cond)                                                                            \
  do {                                                                                             \
    if (!(cond)) {                                                                                 \
      std::fprintf(stderr, "dormouse: assertion failed: %s (%s:%d)\n", #cond, __FILE__, __LINE__); \
      std::abort();                                                                                \
    }                                                                                              \
  } while (0)

namespace dormouse::binding {

// Throws a JavaScript Error carrying code, and pfn/offset/chunk/errno where they are known;
// src/addon.ts turns it into a DormouseError.
inline void throw_fault(Napi::Env env, const Fault& fault) {
  Napi::Error error = Napi::Error::New(env, fault.text);
  error.Set("code", Napi::String::New(env, fault.code));
  auto number = [&](const char* name, uint64_t value) {
    if (value != Fault::kNowhere) error.Set(name, Napi::Number::New(env, double(value)));
  };
  number("pfn", fault.pfn);
  number("offset", fault.offset);
  number("chunk", fault.chunk);
  if (fault.sys_errno) error.Set("errno", Napi::Number::New(env, fault.sys_errno));
  error.ThrowAsJavaScriptException();
}

inline uint32_t arg_u32(const Napi::CallbackInfo& info, size_t i) {
  DM_ASSERT(info.Length() > i && info[i].IsNumber());
  return info[i].As<Napi::Number>().Uint32Value();
}

// A count, pfn or offset: a JavaScript number, whole and at most 2^53.
inline uint64_t arg_u64(const Napi::CallbackInfo& info, size_t i) {
  DM_ASSERT(info.Length() > i && info[i].IsNumber());
  const double value = info[i].As<Napi::Number>().DoubleValue();
  DM_ASSERT(value >= 0 && value <= 9007199254740992.0 && value == double(uint64_t(value)));
  return uint64_t(value);
}

inline Napi::Number num(Napi::Env env, uint64_t value) {
  return Napi::Number::New(env, double(value));
}

}  // namespace dormouse::binding
