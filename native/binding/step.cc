#include "binding/napi_util.h"

namespace dormouse::binding {
Napi::Object init_step(Napi::Env env) { return Napi::Object::New(env); }
}  // namespace dormouse::binding
