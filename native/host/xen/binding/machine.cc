// What the machine has for new domains, as part of the xen addon's surface.
#include "host/xen/binding/machine.h"

#include <algorithm>
#include <string>

#include "binding/entry.h"
#include "host/xen/domain_state.h"

namespace dormouse::xen {
namespace {

const std::shared_ptr<Handles>& (*open_handles)() = nullptr;

Napi::Value failed(Napi::Env env, const char* what) {
  Fault fault;
  raise_errno(&fault, what, DOMID_XEN);
  binding::throw_fault(env, fault);
  return env.Undefined();
}

// freePages() -> pages of the machine that no domain has or was promised
Napi::Value free_pages(const Napi::CallbackInfo& info) {
  xc_physinfo_t machine = {};
  if (xc_physinfo(open_handles()->xc(), &machine) != 0) return failed(info.Env(), "physinfo");
  const uint64_t promised = std::min(machine.free_pages, machine.outstanding_pages);
  return binding::num(info.Env(), machine.free_pages - promised);
}

// commandLine() -> what Xen was booted with
Napi::Value command_line(const Napi::CallbackInfo& info) {
  xen_commandline_t line = {};
  if (xc_version(open_handles()->xc(), XENVER_commandline, &line) < 0)
    return failed(info.Env(), "xen_version");
  return Napi::String::New(info.Env(), line, strnlen(line, sizeof line));
}

// guestPolicy(hvm) -> { cpuidPolicy, msrPolicy }: all that a guest of that kind can be shown
Napi::Value guest_policy(const Napi::CallbackInfo& info) {
  Bytes cpuid, msrs;
  Fault fault;
  if (!read_guest_policy(*open_handles(), binding::arg_bool(info, 0), &cpuid, &msrs, &fault)) {
    binding::throw_fault(info.Env(), fault);
    return info.Env().Undefined();
  }
  Napi::Object out = Napi::Object::New(info.Env());
  out.Set("cpuidPolicy", Napi::Buffer<uint8_t>::Copy(info.Env(), cpuid.data(), cpuid.size()));
  out.Set("msrPolicy", Napi::Buffer<uint8_t>::Copy(info.Env(), msrs.data(), msrs.size()));
  return out;
}

}  // namespace

void add_machine(Napi::Env env, Napi::Object exports,
                 const std::shared_ptr<Handles>& (*handles)()) {
  open_handles = handles;
  binding::add<free_pages>(exports, "freePages");
  binding::add<command_line>(exports, "commandLine");
  binding::add<guest_policy>(exports, "guestPolicy");
}

}  // namespace dormouse::xen
