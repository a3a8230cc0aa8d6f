// The builder's part of the xen addon's surface. Arguments are validated in TypeScript.
#include "host/xen/builder_binding.h"

#include <numeric>

#include "binding/napi_util.h"
#include "binding/registry.h"
#include "host/memory_tag.h"
#include "host/xen/domain_builder.h"

namespace dormouse::xen {
namespace {

using binding::arg_u32;
using binding::num;
using Builders = binding::Registry<DomainBuilder>;

const std::shared_ptr<Handles>& (*open_handles)() = nullptr;

Napi::Value done(Napi::Env env, bool good, const Fault& fault) {
  if (!good) binding::throw_fault(env, fault);
  return env.Undefined();
}

std::shared_ptr<DomainBuilder> builder_of(const Napi::CallbackInfo& info) {
  auto builder = Builders::get().find(arg_u32(info, 0));
  DM_ASSERT(builder);
  return builder;
}

Bytes bytes_of(const Napi::Value& value) {
  auto buffer = value.As<Napi::Buffer<uint8_t>>();
  return Bytes(buffer.Data(), buffer.Data() + buffer.Length());
}

// builderOpen(domid) -> builder
Napi::Value builder_open(const Napi::CallbackInfo& info) {
  Fault fault;
  auto builder = DomainBuilder::open(open_handles(), arg_u32(info, 0), &fault);
  if (!builder) return done(info.Env(), false, fault);
  return num(info.Env(), Builders::get().add(std::move(builder)));
}

// builderSetPolicy(builder, cpuid: Buffer, msrs: Buffer)
Napi::Value set_policy(const Napi::CallbackInfo& info) {
  Fault fault;
  return done(info.Env(),
              builder_of(info)->set_policy(bytes_of(info[1]), bytes_of(info[2]), &fault), fault);
}

// builderSetWidth(builder, width)
Napi::Value set_width(const Napi::CallbackInfo& info) {
  Fault fault;
  return done(info.Env(), builder_of(info)->set_width(arg_u32(info, 1), &fault), fault);
}

// builderSetNrPfns(builder, nrPfns)
Napi::Value set_nr_pfns(const Napi::CallbackInfo& info) {
  Fault fault;
  const uint64_t nr_pfns = binding::arg_u64(info, 1);
  return done(info.Env(), builder_of(info)->set_nr_pfns(nr_pfns, &fault), fault);
}

// builderPopulate(builder, pfns: BigUint64Array)
Napi::Value populate(const Napi::CallbackInfo& info) {
  auto pfns = info[1].As<Napi::BigUint64Array>();
  Fault fault;
  return done(info.Env(), builder_of(info)->populate(pfns.Data(), pfns.ElementLength(), &fault),
              fault);
}

// builderPopulateRun(builder, firstPfn, count)
Napi::Value populate_run(const Napi::CallbackInfo& info) {
  std::vector<uint64_t> pfns(arg_u32(info, 2));
  std::iota(pfns.begin(), pfns.end(), binding::arg_u64(info, 1));
  Fault fault;
  return done(info.Env(), builder_of(info)->populate(pfns.data(), pfns.size(), &fault), fault);
}

// builderDepopulate(builder, pfns: BigUint64Array)
Napi::Value depopulate(const Napi::CallbackInfo& info) {
  auto pfns = info[1].As<Napi::BigUint64Array>();
  Fault fault;
  return done(info.Env(), builder_of(info)->depopulate(pfns.Data(), pfns.ElementLength(), &fault),
              fault);
}

// builderExport(builder) -> External for the main addon's adoptMemory
Napi::Value export_memory(const Napi::CallbackInfo& info) {
  using Held = std::shared_ptr<host::DomainMemory>;
  auto out = Napi::External<Held>::New(info.Env(), new Held(builder_of(info)),
                                       [](Napi::Env, Held* held) { delete held; });
  out.TypeTag(&binding::kMemoryTag);
  return out;
}

// builderFrames(builder, pfns: BigUint64Array) -> the same, frames in it; all ones where none
Napi::Value frames(const Napi::CallbackInfo& info) {
  auto builder = builder_of(info);
  auto list = info[1].As<Napi::BigUint64Array>();
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
  auto pfns = info[1].As<Napi::BigUint64Array>();
  auto levels = info[2].As<Napi::Uint8Array>();
  DM_ASSERT(pfns.ElementLength() == levels.ElementLength());
  std::vector<TableToPin> tables(pfns.ElementLength());
  for (size_t i = 0; i < tables.size(); ++i) tables[i] = {pfns.Data()[i], levels.Data()[i]};
  Fault fault;
  return done(info.Env(), builder_of(info)->pin(tables, &fault), fault);
}

StateBlobs blobs_of(const Napi::Object& state) {
  StateBlobs out;
  auto vcpus = state.Get("vcpus").As<Napi::Array>();
  for (uint32_t i = 0; i < vcpus.Length(); ++i) {
    auto from = vcpus.Get(i).As<Napi::Object>();
    out.vcpus.push_back({from.Get("id").As<Napi::Number>().Uint32Value(),
                         bytes_of(from.Get("basic")), bytes_of(from.Get("extended")),
                         bytes_of(from.Get("xsave")), bytes_of(from.Get("msrs"))});
  }
  out.shared_info = bytes_of(state.Get("sharedInfo"));
  out.tsc_info = bytes_of(state.Get("tscInfo"));
  out.hvm_context = bytes_of(state.Get("hvmContext"));
  out.hvm_params = bytes_of(state.Get("hvmParams"));
  return out;
}

// builderSetPvState(builder, DomainState)
Napi::Value set_pv_state(const Napi::CallbackInfo& info) {
  Fault fault;
  return done(info.Env(),
              builder_of(info)->set_pv_state(blobs_of(info[1].As<Napi::Object>()), &fault), fault);
}

// builderSetHvmState(builder, DomainState, storePort, consolePort) -> [store gfn, console gfn]
Napi::Value set_hvm_state(const Napi::CallbackInfo& info) {
  Fault fault;
  RingFrames rings = {};
  const RingPorts ports = {arg_u32(info, 3), arg_u32(info, 2)};
  if (!builder_of(info)->set_hvm_state(blobs_of(info[1].As<Napi::Object>()), ports, &rings, &fault))
    return done(info.Env(), false, fault);
  Napi::Array out = Napi::Array::New(info.Env(), 2);
  out.Set(0u, num(info.Env(), rings.store));
  out.Set(1u, num(info.Env(), rings.console));
  return out;
}

// builderSeedGrants(builder, storeFrame, storeDomid, consoleFrame, consoleDomid)
Napi::Value seed_grants(const Napi::CallbackInfo& info) {
  const RingFrames rings = {binding::arg_u64(info, 3), binding::arg_u64(info, 1)};
  const RingOwners owners = {arg_u32(info, 4), arg_u32(info, 2)};
  Fault fault;
  return done(info.Env(), builder_of(info)->seed_grants(rings, owners, &fault), fault);
}

// builderUnmap(builder)
Napi::Value unmap(const Napi::CallbackInfo& info) {
  builder_of(info)->unmap();
  return info.Env().Undefined();
}

// builderClose(builder) -> whether it was open
Napi::Value builder_close(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), Builders::get().release(arg_u32(info, 0)));
}

}  // namespace

void add_builder(Napi::Env env, Napi::Object exports,
                 const std::shared_ptr<Handles>& (*handles)()) {
  open_handles = handles;
  auto add = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    exports.Set(name, Napi::Function::New(env, function, name));
  };
  add("builderOpen", builder_open);
  add("builderSetPolicy", set_policy);
  add("builderSetWidth", set_width);
  add("builderSetNrPfns", set_nr_pfns);
  add("builderPopulate", populate);
  add("builderPopulateRun", populate_run);
  add("builderDepopulate", depopulate);
  add("builderExport", export_memory);
  add("builderFrames", frames);
  add("builderSharedInfoFrame", shared_info_frame);
  add("builderPin", pin);
  add("builderSetPvState", set_pv_state);
  add("builderSetHvmState", set_hvm_state);
  add("builderSeedGrants", seed_grants);
  add("builderUnmap", unmap);
  add("builderClose", builder_close);
}

}  // namespace dormouse::xen
