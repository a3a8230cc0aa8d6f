// Arguments of native functions, checked: they are our own TypeScript's, so that a wrong one is a
// programming error, which ends the call and not the process. Small answers, too.
#pragma once
#include <napi.h>

#include <string>

#include "fault.h"

namespace dormouse::binding {

// Why a call was refused; becomes INTERNAL (see entry.h).
struct Refused {
  std::string why;
};

[[noreturn]] inline void refuse(std::string why) { throw Refused{std::move(why)}; }
inline void need(bool good, const char* what) {
  if (!good) refuse(what);
}

// Throws a JavaScript Error carrying code, and pfn/offset/chunk/errno where they are known;
// src/addon.ts turns it into a DormouseError.
void throw_fault(Napi::Env env, const Fault& fault);
// The same, as the answer of a function.
Napi::Value failed(Napi::Env env, const Fault& fault);

// A whole number that fits. A count, pfn or offset is at most 2^53.
uint32_t arg_u32(const Napi::CallbackInfo& info, size_t i);
uint64_t arg_u64(const Napi::CallbackInfo& info, size_t i);
bool arg_bool(const Napi::CallbackInfo& info, size_t i);
std::string arg_text(const Napi::CallbackInfo& info, size_t i);
Napi::Object arg_object(const Napi::CallbackInfo& info, size_t i);
Napi::Array arg_array(const Napi::CallbackInfo& info, size_t i);
// Bytes of a Buffer or Uint8Array.
Napi::Uint8Array arg_bytes(const Napi::CallbackInfo& info, size_t i);
Napi::BigUint64Array arg_words(const Napi::CallbackInfo& info, size_t i);
Napi::Float64Array arg_reals(const Napi::CallbackInfo& info, size_t i);

// Fields of plain objects.
uint64_t field(const Napi::Object& object, const char* name);
bool flag_field(const Napi::Object& object, const char* name);
std::string text_field(const Napi::Object& object, const char* name);
Napi::Object object_field(const Napi::Object& object, const char* name);
Napi::Array array_field(const Napi::Object& object, const char* name);
Napi::BigUint64Array words_field(const Napi::Object& object, const char* name);
Napi::Uint8Array bytes_field(const Napi::Object& object, const char* name);

// Element i of a list.
uint64_t number_at(const Napi::Array& list, uint32_t i);
Napi::Object object_at(const Napi::Array& list, uint32_t i);

// Refuses [first, first + count) unless it lies below `end`.
void need_range(uint64_t first, uint64_t count, uint64_t end, const char* what);

inline Napi::Number num(Napi::Env env, uint64_t value) {
  return Napi::Number::New(env, double(value));
}

}  // namespace dormouse::binding
