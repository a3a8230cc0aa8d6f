// What one addon hands to another, through JavaScript that cannot look into it. It is taken over
// once: what it holds must not wait for a collector of garbage.
#pragma once
#include <memory>
#include <utility>

#include "binding/arguments.h"

namespace dormouse::host {
class DomainMemory;
class StoppedWork;
}  // namespace dormouse::host

namespace dormouse::binding {

template <typename T>
constexpr napi_type_tag kTag = {};  // of zeroes: not to be handed over
template <>
constexpr napi_type_tag kTag<host::DomainMemory> = {0x9d1f5c3ea7b04c62ull, 0xb3e86a01d5f74289ull};
template <>
constexpr napi_type_tag kTag<host::StoppedWork> = {0x4c8e02b9d61f4a37ull, 0x86f1d07a3be95c14ull};

template <typename T>
Napi::Value hand_over(Napi::Env env, std::shared_ptr<T> object) {
  static_assert(kTag<T>.lower != 0, "no tag for it");
  using Held = std::shared_ptr<T>;
  auto out = Napi::External<Held>::New(env, new Held(std::move(object)),
                                       [](Napi::Env, Held* held) { delete held; });
  out.TypeTag(&kTag<T>);
  return out;
}

template <typename T>
std::shared_ptr<T> take_over(const Napi::CallbackInfo& info, size_t i) {
  static_assert(kTag<T>.lower != 0, "no tag for it");
  need(info[i].IsExternal(), "nothing of another addon");
  auto external = info[i].As<Napi::External<std::shared_ptr<T>>>();
  need(external.CheckTypeTag(&kTag<T>) && *external.Data(), "not what is taken over, or it was");
  return std::move(*external.Data());
}

}  // namespace dormouse::binding
