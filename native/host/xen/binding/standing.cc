#include "host/xen/binding/standing.h"

#include "binding/entry.h"
#include "binding/external.h"
#include "binding/registry.h"
#include "host/xen/binding/state_arguments.h"
#include "host/xen/core_state.h"
#include "host/xen/xen_stoppable.h"

namespace dormouse::xen {
namespace {

using binding::arg_u32;
using binding::failed;
using binding::held;
using binding::num;

const std::shared_ptr<Handles>& (*open_handles)() = nullptr;

Napi::Buffer<uint8_t> buffer_of(Napi::Env env, const Bytes& bytes) {
  return Napi::Buffer<uint8_t>::Copy(env, bytes.data(), bytes.size());
}

// DomainState of the contract.
Napi::Object describe(Napi::Env env, const StateBlobs& blobs) {
  Napi::Array vcpus = Napi::Array::New(env);
  for (const VcpuBlobs& from : blobs.vcpus) {
    Napi::Object vcpu = Napi::Object::New(env);
    vcpu.Set("id", num(env, from.id));
    vcpu.Set("basic", buffer_of(env, from.basic));
    vcpu.Set("extended", buffer_of(env, from.extended));
    vcpu.Set("xsave", buffer_of(env, from.xsave));
    vcpu.Set("msrs", buffer_of(env, from.msrs));
    vcpus.Set(vcpus.Length(), vcpu);
  }
  Napi::Object out = Napi::Object::New(env);
  out.Set("vcpus", vcpus);
  out.Set("sharedInfo", buffer_of(env, blobs.shared_info));
  out.Set("tscInfo", buffer_of(env, blobs.tsc_info));
  out.Set("cpuidPolicy", buffer_of(env, blobs.cpuid_policy));
  out.Set("msrPolicy", buffer_of(env, blobs.msr_policy));
  out.Set("hvmContext", buffer_of(env, blobs.hvm_context));
  out.Set("hvmParams", buffer_of(env, blobs.hvm_params));
  return out;
}

// readState(domid) -> DomainState
Napi::Value state(const Napi::CallbackInfo& info) {
  Fault fault;
  StateBlobs blobs;
  if (!read_state(open_handles(), arg_u32(info, 0), &blobs, &fault))
    return failed(info.Env(), fault);
  return describe(info.Env(), blobs);
}

// coreState(domid) -> CoreState of the contract
Napi::Value core_state(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Fault fault;
  CoreBlobs blobs;
  if (!read_core_state(open_handles(), arg_u32(info, 0), &blobs, &fault)) return failed(env, fault);
  Napi::Array contexts = Napi::Array::New(env);
  for (const Bytes& context : blobs.contexts)
    contexts.Set(contexts.Length(), buffer_of(env, context));
  Napi::Object out = Napi::Object::New(env);
  out.Set("contexts", contexts);
  out.Set("sharedInfo", buffer_of(env, blobs.shared_info));
  out.Set("hypervisor", buffer_of(env, blobs.hypervisor));
  return out;
}

Napi::Array numbers(Napi::Env env, const std::vector<uint32_t>& from) {
  Napi::Array out = Napi::Array::New(env, from.size());
  for (uint32_t i = 0; i < from.size(); ++i) out.Set(i, num(env, from[i]));
  return out;
}

// DomainLinks of the contract, but for the devices.
Napi::Object describe(Napi::Env env, const LinksBlobs& links) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("unfit", Napi::String::New(env, links.unfit));
  out.Set("grants", buffer_of(env, links.grants));
  out.Set("channels", buffer_of(env, links.channels));
  out.Set("eventArrayPfn", num(env, links.event_array));
  out.Set("rings", buffer_of(env, links.rings));
  return out;
}

// A byte in which to tell whether the domain stands by our pause, also after an error.
uint8_t* stands_of(const Napi::CallbackInfo& info, size_t i) {
  auto bytes = binding::arg_bytes(info, i);
  binding::need(bytes.ByteLength() == 1, "not one byte");
  return bytes.Data();
}

// pauseOutsideShadow(domid, memory | null, stands, rings | null)
// -> { inShadow: vCPUs that stand in the shadow nevertheless, atRest }
Napi::Value pause_watched(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::shared_ptr<XenMemory> memory = info[1].IsNull() ? nullptr : held<XenMemory>(info, 1);
  const uint32_t domid = arg_u32(info, 0);
  XenstoreRest xenstore(open_handles(), domid);
  Fault fault;
  XenPause::Rests rests;
  bool at_rest = true;
  if (!info[3].IsNull()) {
    std::string missing;
    if (!xenstore.prepare(rings_argument(info, 3).store_frame, &missing)) {
      fault.raise("HOST_LACKS", missing);
      return failed(env, fault);
    }
    rests = [&](bool* now, Fault*) {
      *now = at_rest = xenstore.look(true);
      return true;
    };
  }
  std::vector<uint32_t> in_shadow;
  XenPause pause(open_handles(), domid, stands_of(info, 2));
  if (!pause.begin(memory.get(), rests, &in_shadow, &fault)) return failed(env, fault);
  Napi::Object out = Napi::Object::New(env);
  out.Set("inShadow", numbers(env, in_shadow));
  out.Set("atRest", Napi::Boolean::New(env, at_rest));
  return out;
}

std::vector<uint64_t> pfns_of(const Napi::CallbackInfo& info, size_t i) {
  const auto words = binding::arg_words(info, i);
  return {words.Data(), words.Data() + words.ElementLength()};
}

Napi::Object describe(Napi::Env env, const StopTimes& times,
                      const std::vector<uint32_t>& in_shadow) {
  const auto ms = [env](uint64_t ns) { return Napi::Number::New(env, double(ns) / 1e6); };
  Napi::Object out = Napi::Object::New(env);
  out.Set("inShadow", numbers(env, in_shadow));
  out.Set("stopMs", ms(times.stop_ns));
  out.Set("findMs", ms(times.find_ns));
  out.Set("copyMs", ms(times.copy_ns));
  out.Set("stateMs", ms(times.state_ns));
  out.Set("resumeMs", ms(times.resume_ns));
  return out;
}

// As the contract has them: a grant, and whether it is a disk's, for each page.
std::vector<RingPage> ring_pages_of(const Napi::CallbackInfo& info, size_t i) {
  std::vector<RingPage> out;
  for (const uint64_t word : pfns_of(info, i)) out.push_back({uint32_t(word), (word >> 32) != 0});
  return out;
}

// captureStopped(domid, memory, work, eventPages, standing(state, links), stands, rings, ringPages)
// -> { inShadow, stopMs, ... }
Napi::Value capture(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  binding::need(info[4].IsFunction(), "argument 5 is no function");
  const auto standing = info[4].As<Napi::Function>();
  Fault fault;
  // Not by Call(), so that what is thrown stays as it is, and no exception of C++.
  const auto captured = [&](const StateBlobs& blobs, const LinksBlobs& links) {
    const napi_value arguments[] = {describe(env, blobs), describe(env, links)};
    if (napi_call_function(env, env.Undefined(), standing, 2, arguments, nullptr) == napi_ok)
      return true;
    return fault.raise("INTERNAL", "JavaScript could not be called in the pause");
  };
  XenStoppable domain(open_handles(), arg_u32(info, 0), held<XenMemory>(info, 1),
                      rings_argument(info, 6), ring_pages_of(info, 7), pfns_of(info, 3), captured,
                      stands_of(info, 5));
  const auto work = binding::take_over<host::StoppedWork>(info, 2);
  StopTimes times;
  if (capture_stopped(domain, *work, &times, &fault))
    return describe(env, times, domain.in_shadow());
  return env.IsExceptionPending() ? env.Undefined() : failed(env, fault);
}

}  // namespace

void add_standing(Napi::Object exports, const std::shared_ptr<Handles>& (*handles)()) {
  open_handles = handles;
  binding::add<state>(exports, "readState");
  binding::add<core_state>(exports, "coreState");
  binding::add<pause_watched>(exports, "pauseOutsideShadow");
  binding::add<capture>(exports, "captureStopped");
}

}  // namespace dormouse::xen
