#include "binding/arguments.h"

namespace dormouse::binding {
namespace {

std::string place(size_t i) { return "argument " + std::to_string(i + 1); }

uint64_t whole_number(const Napi::Value& value, double most, const std::string& what) {
  if (!value.IsNumber()) refuse(what + " is no number");
  const double number = value.As<Napi::Number>().DoubleValue();
  // Written so that it is false for what is not a number.
  if (!(number >= 0 && number <= most) || number != double(uint64_t(number)))
    refuse(what + " is not a whole number within its bounds");
  return uint64_t(number);
}

template <typename Array>
Array typed_value(const Napi::Value& value, const std::string& what, napi_typedarray_type type) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != type)
    refuse(what + " is not an array of the right type");
  return value.As<Array>();
}

template <typename Array>
Array typed_array(const Napi::CallbackInfo& info, size_t i, napi_typedarray_type type) {
  return typed_value<Array>(info[i], place(i), type);
}

Napi::Object as_object(const Napi::Value& value, const std::string& what) {
  if (!value.IsObject()) refuse(what + " is no object");
  return value.As<Napi::Object>();
}

Napi::Array as_array(const Napi::Value& value, const std::string& what) {
  if (!value.IsArray()) refuse(what + " is no list");
  return value.As<Napi::Array>();
}

constexpr double kMostU32 = 4294967295.0, kMostExact = 9007199254740992.0;

}  // namespace

void throw_fault(Napi::Env env, const Fault& fault) {
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

Napi::Value failed(Napi::Env env, const Fault& fault) {
  throw_fault(env, fault);
  return {};
}

uint32_t arg_u32(const Napi::CallbackInfo& info, size_t i) {
  return uint32_t(whole_number(info[i], kMostU32, place(i)));
}

uint64_t arg_u64(const Napi::CallbackInfo& info, size_t i) {
  return whole_number(info[i], kMostExact, place(i));
}

bool arg_bool(const Napi::CallbackInfo& info, size_t i) {
  if (!info[i].IsBoolean()) refuse(place(i) + " is neither true nor false");
  return info[i].As<Napi::Boolean>().Value();
}

std::string arg_text(const Napi::CallbackInfo& info, size_t i) {
  if (!info[i].IsString()) refuse(place(i) + " is no text");
  return info[i].As<Napi::String>().Utf8Value();
}

Napi::Object arg_object(const Napi::CallbackInfo& info, size_t i) {
  return as_object(info[i], place(i));
}

Napi::Array arg_array(const Napi::CallbackInfo& info, size_t i) {
  return as_array(info[i], place(i));
}

Napi::Uint8Array arg_bytes(const Napi::CallbackInfo& info, size_t i) {
  return typed_array<Napi::Uint8Array>(info, i, napi_uint8_array);
}

Napi::BigUint64Array arg_words(const Napi::CallbackInfo& info, size_t i) {
  return typed_array<Napi::BigUint64Array>(info, i, napi_biguint64_array);
}

Napi::Float64Array arg_reals(const Napi::CallbackInfo& info, size_t i) {
  return typed_array<Napi::Float64Array>(info, i, napi_float64_array);
}

uint64_t field(const Napi::Object& object, const char* name) {
  return whole_number(object.Get(name), kMostExact, name);
}

bool flag_field(const Napi::Object& object, const char* name) {
  return object.Get(name).ToBoolean().Value();
}

std::string text_field(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsString()) refuse(std::string(name) + " is no text");
  return value.As<Napi::String>().Utf8Value();
}

Napi::Object object_field(const Napi::Object& object, const char* name) {
  return as_object(object.Get(name), name);
}

Napi::Array array_field(const Napi::Object& object, const char* name) {
  return as_array(object.Get(name), name);
}

Napi::BigUint64Array words_field(const Napi::Object& object, const char* name) {
  return typed_value<Napi::BigUint64Array>(object.Get(name), name, napi_biguint64_array);
}

Napi::Uint8Array bytes_field(const Napi::Object& object, const char* name) {
  return typed_value<Napi::Uint8Array>(object.Get(name), name, napi_uint8_array);
}

uint64_t number_at(const Napi::Array& list, uint32_t i) {
  return whole_number(list.Get(i), kMostExact, "an element of the list");
}

Napi::Object object_at(const Napi::Array& list, uint32_t i) {
  return as_object(list.Get(i), "an element of the list");
}

void need_range(uint64_t first, uint64_t count, uint64_t end, const char* what) {
  if (first <= end && count <= end - first) return;
  refuse(std::to_string(count) + " " + what + " from " + std::to_string(first) + " on, of " +
         std::to_string(end));
}

}  // namespace dormouse::binding
