#pragma once
#include <napi.h>

#include "host/xen/handles.h"

namespace dormouse::xen {

// Adds the builder's functions; `handles` gives what open() opened.
void add_builder(Napi::Env env, Napi::Object exports, const std::shared_ptr<Handles>& (*handles)());

}  // namespace dormouse::xen
