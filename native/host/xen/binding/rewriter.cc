#include "host/xen/binding/rewriter.h"

#include "binding/entry.h"
#include "binding/external.h"
#include "binding/registry.h"
#include "host/xen/binding/state_arguments.h"
#include "host/xen/domain_rewriter.h"

namespace dormouse::xen {
namespace {

using binding::add;
using binding::arg_u32;
using binding::held;

const std::shared_ptr<Handles>& (*open_handles)() = nullptr;

Napi::Value done(Napi::Env env, bool good, const Fault& fault) {
  return good ? env.Undefined() : binding::failed(env, fault);
}

// rewriterOpen(domid, memory) -> rewriter
Napi::Value open_rewriter(const Napi::CallbackInfo& info) {
  Fault fault;
  auto rewriter =
      DomainRewriter::open(open_handles(), arg_u32(info, 0), held<XenMemory>(info, 1), &fault);
  if (!rewriter) return done(info.Env(), false, fault);
  return binding::give<DomainRewriter>(info.Env(), std::move(rewriter));
}

// rewriterExport(rewriter) -> External for the main addon's adoptMemory
Napi::Value export_memory(const Napi::CallbackInfo& info) {
  return binding::hand_over<host::DomainMemory>(info.Env(), held<DomainRewriter>(info, 0));
}

// rewriterCheckGrants(rewriter, links)
Napi::Value check_grants(const Napi::CallbackInfo& info) {
  Fault fault;
  return done(info.Env(),
              held<DomainRewriter>(info, 0)->check_grants(links_argument(info, 1), &fault), fault);
}

// rewriterBegin(rewriter)
Napi::Value begin(const Napi::CallbackInfo& info) {
  Fault fault;
  return done(info.Env(), held<DomainRewriter>(info, 0)->begin(&fault), fault);
}

// rewriterLand(rewriter, DomainState, links, rings, pfns: BigUint64Array, levels: Uint8Array)
Napi::Value land(const Napi::CallbackInfo& info) {
  Fault fault;
  const bool good =
      held<DomainRewriter>(info, 0)->land(tables_argument(info, 4), state_argument(info, 1),
                                          links_argument(info, 2), rings_argument(info, 3), &fault);
  return done(info.Env(), good, fault);
}

// channels(domid) -> a byte for each port
Napi::Value channels(const Napi::CallbackInfo& info) {
  Fault fault;
  Bytes found;
  if (!read_channels(*open_handles(), arg_u32(info, 0), &found, &fault))
    return binding::failed(info.Env(), fault);
  return Napi::Buffer<uint8_t>::Copy(info.Env(), found.data(), found.size());
}

}  // namespace

void add_rewriter(Napi::Object exports, const std::shared_ptr<Handles>& (*handles)()) {
  open_handles = handles;
  add<open_rewriter>(exports, "rewriterOpen");
  add<export_memory>(exports, "rewriterExport");
  add<check_grants>(exports, "rewriterCheckGrants");
  add<begin>(exports, "rewriterBegin");
  add<land>(exports, "rewriterLand");
  add<channels>(exports, "channels");
  add<binding::release<DomainRewriter>>(exports, "rewriterClose");
}

}  // namespace dormouse::xen
