// A domain's state as JavaScript hands it in (DomainState of the contract).
#pragma once
#include "binding/arguments.h"
#include "host/xen/domain_builder.h"
#include "host/xen/domain_links.h"

namespace dormouse::xen {

inline Bytes bytes_of(const Napi::Uint8Array& array) {
  return Bytes(array.Data(), array.Data() + array.ByteLength());
}

StateBlobs state_argument(const Napi::CallbackInfo& info, size_t i);
LinksBlobs links_argument(const Napi::CallbackInfo& info, size_t i);
// { storeFrame, storePort, consolePort }
RingEnds rings_argument(const Napi::CallbackInfo& info, size_t i);
// Pfns in a BigUint64Array at i, their levels in a Uint8Array after it.
std::vector<TableToPin> tables_argument(const Napi::CallbackInfo& info, size_t i);

}  // namespace dormouse::xen
