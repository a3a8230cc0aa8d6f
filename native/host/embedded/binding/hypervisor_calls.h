// Shared by the files of namespace `hypervisor`.
#pragma once
#include <memory>
#include <string>

#include "binding/entry.h"
#include "binding/registry.h"
#include "host/embedded/hypervisor.h"

namespace dormouse::binding {

struct HostedMachine {
  embedded::Hypervisor hypervisor;
  Napi::ThreadSafeFunction events;

  ~HostedMachine() {
    hypervisor.domains.clear();
    events.Abort();  // what was not delivered yet is dropped: there may be no JavaScript any more
  }
};

inline const char* reason_name(int reason) {
  static const char* names[] = {"poweroff", "reboot", "suspend", "crash"};
  return names[reason];
}

using Args = const Napi::CallbackInfo&;

inline std::shared_ptr<HostedMachine> machine_of(Args info) { return held<HostedMachine>(info, 0); }

// The domain of (machine, domid, ...), or null with DOMAIN_NOT_FOUND thrown.
inline embedded::Domain* domain_of(Args info, const std::shared_ptr<HostedMachine>& machine) {
  embedded::Domain* domain = machine->hypervisor.find(arg_u32(info, 1));
  if (domain) return domain;
  Fault fault;
  fault.raise("DOMAIN_NOT_FOUND", "no domain " + std::to_string(arg_u32(info, 1)));
  throw_fault(info.Env(), fault);
  return nullptr;
}

// Wraps a function of one domain: looks it up, calls, throws the fault that was raised.
using DomainCall = Napi::Value (*)(embedded::Domain&, Args, Fault*);
template <DomainCall call>
Napi::Value on_domain(Args info) {
  const auto machine = machine_of(info);
  embedded::Domain* domain = domain_of(info, machine);
  if (!domain) return {};
  Fault fault;
  const Napi::Value result = call(*domain, info, &fault);
  return fault ? failed(info.Env(), fault) : result;
}

inline Napi::Value bytes(Napi::Env env, const void* data, size_t length) {
  return Napi::Buffer<uint8_t>::Copy(env, static_cast<const uint8_t*>(data), length);
}

// Adds the calls that look at, run and snapshot one domain.
void add_domain_calls(Napi::Object ns);
// Adds the calls on its block devices.
void add_device_calls(Napi::Object ns);

}  // namespace dormouse::binding
