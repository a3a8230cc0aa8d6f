// The N-API surface: one object of functions per native folder (native/binding/*.cc).
#include <napi.h>

namespace dormouse::binding {
Napi::Object init_pfn(Napi::Env env);
Napi::Object init_codec(Napi::Env env);
Napi::Object init_image(Napi::Env env);
Napi::Object init_hypervisor(Napi::Env env);
Napi::Object init_embedded(Napi::Env env);
Napi::Object init_step(Napi::Env env);
Napi::Object init_limits(Napi::Env env);
Napi::Object init_file_lock(Napi::Env env);
Napi::Object init_disk(Napi::Env env);
Napi::Object init_output(Napi::Env env);
Napi::Object init_page_stream(Napi::Env env);
}  // namespace dormouse::binding

static Napi::Object init(Napi::Env env, Napi::Object exports) {
  using namespace dormouse::binding;
  exports.Set("pfn", init_pfn(env));
  exports.Set("codec", init_codec(env));
  exports.Set("image", init_image(env));
  exports.Set("hypervisor", init_hypervisor(env));
  exports.Set("embedded", init_embedded(env));
  exports.Set("step", init_step(env));
  exports.Set("limits", init_limits(env));
  exports.Set("fileLock", init_file_lock(env));
  exports.Set("disk", init_disk(env));
  exports.Set("output", init_output(env));
  exports.Set("pageStream", init_page_stream(env));
  return exports;
}
NODE_API_MODULE(dormouse, init)
