#include "host/xen/binding/state_arguments.h"

namespace dormouse::xen {
namespace {

Bytes blob(const Napi::Object& from, const char* name) {
  return bytes_of(binding::bytes_field(from, name));
}

}  // namespace

StateBlobs state_argument(const Napi::CallbackInfo& info, size_t i) {
  const Napi::Object state = binding::arg_object(info, i);
  StateBlobs out;
  const auto vcpus = binding::array_field(state, "vcpus");
  for (uint32_t k = 0; k < vcpus.Length(); ++k) {
    const auto from = binding::object_at(vcpus, k);
    out.vcpus.push_back({uint32_t(binding::field(from, "id")), blob(from, "basic"),
                         blob(from, "extended"), blob(from, "xsave"), blob(from, "msrs")});
  }
  out.shared_info = blob(state, "sharedInfo");
  out.tsc_info = blob(state, "tscInfo");
  out.hvm_context = blob(state, "hvmContext");
  out.hvm_params = blob(state, "hvmParams");
  return out;
}

LinksBlobs links_argument(const Napi::CallbackInfo& info, size_t i) {
  const Napi::Object links = binding::arg_object(info, i);
  return {{},
          blob(links, "grants"),
          blob(links, "channels"),
          binding::field(links, "eventArrayPfn"),
          blob(links, "rings")};
}

RingEnds rings_argument(const Napi::CallbackInfo& info, size_t i) {
  const Napi::Object rings = binding::arg_object(info, i);
  return {binding::field(rings, "storeFrame"), uint32_t(binding::field(rings, "storePort")),
          uint32_t(binding::field(rings, "consolePort"))};
}

std::vector<TableToPin> tables_argument(const Napi::CallbackInfo& info, size_t i) {
  auto pfns = binding::arg_words(info, i);
  auto levels = binding::arg_bytes(info, i + 1);
  binding::need(pfns.ElementLength() == levels.ElementLength(), "not a level for each pfn");
  std::vector<TableToPin> tables(pfns.ElementLength());
  for (size_t k = 0; k < tables.size(); ++k) {
    binding::need(levels.Data()[k] >= 1 && levels.Data()[k] <= 4, "no level of a page table");
    tables[k] = {pfns.Data()[k], levels.Data()[k]};
  }
  return tables;
}

}  // namespace dormouse::xen
