// How one addon knows what another made: an External of a std::shared_ptr to
#pragma once
#include <napi.h>

namespace dormouse::binding {
// a host::DomainMemory,
constexpr napi_type_tag kMemoryTag = {0x9d1f5c3ea7b04c62ull, 0xb3e86a01d5f74289ull};
// a host::StoppedWork.
constexpr napi_type_tag kStoppedWorkTag = {0x4c8e02b9d61f4a37ull, 0x86f1d07a3be95c14ull};
}  // namespace dormouse::binding
