// How one addon knows an External of another as a std::shared_ptr<host::DomainMemory>.
#pragma once
#include <napi.h>

namespace dormouse::binding {
constexpr napi_type_tag kMemoryTag = {0x9d1f5c3ea7b04c62ull, 0xb3e86a01d5f74289ull};
}  // namespace dormouse::binding
