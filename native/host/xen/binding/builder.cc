// The builder's part of the xen addon's surface.
#include "host/xen/binding/builder.h"

#include <numeric>

#include "binding/entry.h"
#include "binding/external.h"
#include "binding/registry.h"
#include "host/xen/binding/state_arguments.h"

namespace dormouse::xen {
namespace {

using binding::add;
using binding::arg_bytes;
using binding::arg_u32;
using binding::arg_u64;
using binding::arg_words;
using binding::num;

const std::shared_ptr<Handles>& (*open_handles)() = nullptr;

Napi::Value done(Napi::Env env, bool good, const Fault& fault) {
  return good ? env.Undefined() : binding::failed(env, fault);
}

std::shared_ptr<DomainBuilder> builder_of(const Napi::CallbackInfo& info) {
  return binding::held<DomainBuilder>(info, 0);
}

// builderOpen(domid) -> builder
Napi::Value builder_open(const Napi::CallbackInfo& info) {
  Fault fault;
  auto builder = DomainBuilder::open(open_handles(), arg_u32(info, 0), &fault);
  if (!builder) return done(info.Env(), false, fault);
  return binding::give<DomainBuilder>(info.Env(), std::move(builder));
}

// builderSetPolicy(builder, cpuid: Buffer, msrs: Buffer)
Napi::Value set_policy(const Napi::CallbackInfo& info) {
  Fault fault;
  return done(info.Env(),
              builder_of(info)->set_policy(bytes_of(arg_bytes(info, 1)),
                                           bytes_of(arg_bytes(info, 2)), &fault),
              fault);
}

// builderSetWidth(builder, width)
Napi::Value set_width(const Napi::CallbackInfo& info) {
  Fault fault;
  return done(info.Env(), builder_of(info)->set_width(arg_u32(info, 1), &fault), fault);
}

// builderSetNrPfns(builder, nrPfns)
Napi::Value set_nr_pfns(const Napi::CallbackInfo& info) {
  Fault fault;
  const uint64_t nr_pfns = arg_u64(info, 1);
  return done(info.Env(), builder_of(info)->set_nr_pfns(nr_pfns, &fault), fault);
}

// builderPopulate(builder, pfns: BigUint64Array)
Napi::Value populate(const Napi::CallbackInfo& info) {
  auto pfns = arg_words(info, 1);
  Fault fault;
  return done(info.Env(), builder_of(info)->populate(pfns.Data(), pfns.ElementLength(), &fault),
              fault);
}

// builderPopulateRun(builder, firstPfn, count)
Napi::Value populate_run(const Napi::CallbackInfo& info) {
  const auto builder = builder_of(info);
  binding::need_range(arg_u64(info, 1), arg_u32(info, 2), builder->nr_pfns(), "pfns");
  std::vector<uint64_t> pfns(arg_u32(info, 2));
  std::iota(pfns.begin(), pfns.end(), arg_u64(info, 1));
  Fault fault;
  return done(info.Env(), builder->populate(pfns.data(), pfns.size(), &fault), fault);
}

// builderDepopulate(builder, pfns: BigUint64Array)
Napi::Value depopulate(const Napi::CallbackInfo& info) {
  auto pfns = arg_words(info, 1);
  Fault fault;
  return done(info.Env(), builder_of(info)->depopulate(pfns.Data(), pfns.ElementLength(), &fault),
              fault);
}

// builderExport(builder) -> External for the main addon's adoptMemory
Napi::Value export_memory(const Napi::CallbackInfo& info) {
  return binding::hand_over<host::DomainMemory>(info.Env(), builder_of(info));
}

// builderFrames(builder, pfns: BigUint64Array) -> the same, frames in it; all ones where none
Napi::Value frames(const Napi::CallbackInfo& info) {
  auto builder = builder_of(info);
  auto list = arg_words(info, 1);
  for (size_t i = 0; i < list.ElementLength(); ++i) {
    const uint64_t frame = builder->frame(list.Data()[i]);
    list.Data()[i] = frame == host::kNoMfn ? ~0ull : frame;
  }
  return list;
}

// builderSharedInfoFrame(builder) -> number
Napi::Value shared_info_frame(const Napi::CallbackInfo& info) {
  Fault fault;
  uint64_t frame = 0;
  if (!builder_of(info)->shared_info_frame(&frame, &fault)) return done(info.Env(), false, fault);
  return num(info.Env(), frame);
}

// builderPin(builder, pfns: BigUint64Array, levels: Uint8Array)
Napi::Value pin(const Napi::CallbackInfo& info) {
  Fault fault;
  return done(info.Env(), builder_of(info)->pin(tables_argument(info, 1), &fault), fault);
}

// builderSetPvState(builder, DomainState)
Napi::Value set_pv_state(const Napi::CallbackInfo& info) {
  Fault fault;
  return done(info.Env(), builder_of(info)->set_pv_state(state_argument(info, 1), &fault), fault);
}

// builderSetHvmState(builder, DomainState, storePort, consolePort) -> [store gfn, console gfn]
Napi::Value set_hvm_state(const Napi::CallbackInfo& info) {
  Fault fault;
  RingFrames rings = {};
  const RingPorts ports = {arg_u32(info, 3), arg_u32(info, 2)};
  if (!builder_of(info)->set_hvm_state(state_argument(info, 1), ports, &rings, &fault))
    return done(info.Env(), false, fault);
  Napi::Array out = Napi::Array::New(info.Env(), 2);
  out.Set(0u, num(info.Env(), rings.store));
  out.Set(1u, num(info.Env(), rings.console));
  return out;
}

// builderSeedGrants(builder, storeFrame, storeDomid, consoleFrame, consoleDomid)
Napi::Value seed_grants(const Napi::CallbackInfo& info) {
  const RingFrames rings = {arg_u64(info, 3), arg_u64(info, 1)};
  const RingOwners owners = {arg_u32(info, 4), arg_u32(info, 2)};
  Fault fault;
  return done(info.Env(), builder_of(info)->seed_grants(rings, owners, &fault), fault);
}

// builderUnmap(builder)
Napi::Value unmap(const Napi::CallbackInfo& info) {
  builder_of(info)->unmap();
  return {};
}

}  // namespace

void add_builder(Napi::Env env, Napi::Object exports,
                 const std::shared_ptr<Handles>& (*handles)()) {
  open_handles = handles;
  add<builder_open>(exports, "builderOpen");
  add<set_policy>(exports, "builderSetPolicy");
  add<set_width>(exports, "builderSetWidth");
  add<set_nr_pfns>(exports, "builderSetNrPfns");
  add<populate>(exports, "builderPopulate");
  add<populate_run>(exports, "builderPopulateRun");
  add<depopulate>(exports, "builderDepopulate");
  add<export_memory>(exports, "builderExport");
  add<frames>(exports, "builderFrames");
  add<shared_info_frame>(exports, "builderSharedInfoFrame");
  add<pin>(exports, "builderPin");
  add<set_pv_state>(exports, "builderSetPvState");
  add<set_hvm_state>(exports, "builderSetHvmState");
  add<seed_grants>(exports, "builderSeedGrants");
  add<unmap>(exports, "builderUnmap");
  add<binding::release<DomainBuilder>>(exports, "builderClose");
}

}  // namespace dormouse::xen
