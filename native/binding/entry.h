// The border: every function that JavaScript may call is added by add(), and nothing that goes
// wrong in it ends the process.
#pragma once
#include "binding/arguments.h"
#include "guard.h"

namespace dormouse::binding {

using Call = Napi::Value (*)(const Napi::CallbackInfo&);

template <Call call>
Napi::Value entry(const Napi::CallbackInfo& info) {
  Fault fault;
  try {
    Napi::Value result;
    const bool good = guarded(&fault, [&] {
      result = call(info);
      return true;
    });
    if (good) return result;
  } catch (const Refused& refused) {
    fault.raise("INTERNAL", "refused: " + refused.why);
  }
  fault.text = std::string(static_cast<const char*>(info.Data())) + ": " + fault.text;
  return failed(info.Env(), fault);
}

// `name` is a literal: it is kept.
template <Call call>
void add(Napi::Object exports, const char* name) {
  exports.Set(name, Napi::Function::New<entry<call>>(exports.Env(), name, const_cast<char*>(name)));
}

}  // namespace dormouse::binding
