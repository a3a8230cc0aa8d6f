#pragma once
#include <napi.h>

#include <memory>

#include "host/xen/handles.h"

namespace dormouse::xen {

// Adds what is asked of a domain that stands still, or is brought to that.
void add_standing(Napi::Object exports, const std::shared_ptr<Handles>& (*handles)());

}  // namespace dormouse::xen
