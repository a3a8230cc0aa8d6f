// What the machine has for new domains, as part of the xen addon's surface.
#pragma once
#include <napi.h>

#include <memory>

#include "host/xen/handles.h"

namespace dormouse::xen {

void add_machine(Napi::Env env, Napi::Object exports, const std::shared_ptr<Handles>& (*handles)());

}  // namespace dormouse::xen
