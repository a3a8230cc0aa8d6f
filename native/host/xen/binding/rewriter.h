// Rewriting in place, as part of the xen addon's surface.
#pragma once
#include <napi.h>

#include <memory>

#include "host/xen/handles.h"

namespace dormouse::xen {

void add_rewriter(Napi::Object exports, const std::shared_ptr<Handles>& (*handles)());

}  // namespace dormouse::xen
