// Namespace `hypervisor`: a domain's devices.
#include <cstring>
#include <string>

#include "host/embedded/binding/hypervisor_calls.h"
#include "host/embedded/block_frontend.h"
#include "host/embedded/network_frontend.h"

namespace dormouse::binding {

namespace {

using embedded::BackendBehaviour;
using embedded::BlockFrontend;
using embedded::Domain;
using embedded::FrontendSeen;
using embedded::NetworkFrontend;

// addDisk(machine, domid, { name, path, writable, port })
Napi::Value add_disk(Domain& dom, Args info, Fault* fault) {
  const auto disk = arg_object(info, 2);
  const uint64_t port = field(disk, "port");
  need(port >= 1 && port < 4096, "no event channel");
  if (!dom.building || dom.guest) {
    fault->raise("DOMAIN_WRONG_STATE", "the domain is complete already");
    return {};
  }
  dom.add_disk({text_field(disk, "name"), text_field(disk, "path"), flag_field(disk, "writable"),
                uint32_t(port)},
               fault);
  return {};
}

// addNetwork(machine, domid, { mac, port }): the address as six bytes
Napi::Value add_network(Domain& dom, Args info, Fault* fault) {
  const auto network = arg_object(info, 2);
  const uint64_t port = field(network, "port");
  need(port >= 1 && port < 4096, "no event channel");
  const auto mac = network.Get("mac");
  need(mac.IsBuffer() && mac.As<Napi::Buffer<uint8_t>>().Length() == embedded::kMacBytes,
       "no address of six bytes");
  if (!dom.building || dom.guest) {
    fault->raise("DOMAIN_WRONG_STATE", "the domain is complete already");
    return {};
  }
  embedded::NetworkOptions options;
  options.port = uint32_t(port);
  std::memcpy(options.mac.data(), mac.As<Napi::Buffer<uint8_t>>().Data(), options.mac.size());
  dom.add_network(options, fault);
  return {};
}

// Both ends of a device. What a guest that has yet to meet it remembers of others says nothing.
Napi::Object ends(Napi::Env env, const Domain& dom, embedded::Backend& backend, FrontendSeen seen) {
  const bool met = dom.devices_connected || seen.state == embedded::kXenbusClosed;
  if (!met) seen = {embedded::kXenbusInitialising};
  Napi::Object one = Napi::Object::New(env);
  one.Set("frontend", num(env, seen.state));
  one.Set("backend", num(env, met ? uint32_t(backend.state()) : embedded::kXenbusInitWait));
  Napi::Array rings = Napi::Array::New(env, 2);
  for (uint32_t i = 0; i < 2; i++) rings.Set(i, num(env, seen.rings[i]));
  one.Set("ringRefs", rings);
  return one;
}

constexpr FrontendSeen kNobody{embedded::kXenbusInitialising};

Napi::Value disks(Domain& dom, Args info, Fault*) {
  Napi::Array out = Napi::Array::New(info.Env(), dom.disks.size());
  for (uint32_t i = 0; i < dom.disks.size(); i++) {
    const bool has = dom.guest && i < dom.guest->disks;
    Napi::Object one =
        ends(info.Env(), dom, *dom.disks[i], has ? BlockFrontend::look(dom, i) : kNobody);
    one.Set("sectors", num(info.Env(), dom.disks[i]->sectors()));
    out.Set(i, one);
  }
  return out;
}

Napi::Value networks(Domain& dom, Args info, Fault*) {
  Napi::Array out = Napi::Array::New(info.Env(), dom.networks.size());
  for (uint32_t i = 0; i < dom.networks.size(); i++) {
    const bool has = dom.guest && i < dom.guest->networks;
    const FrontendSeen seen = has ? NetworkFrontend::look(dom, i) : kNobody;
    out.Set(i, ends(info.Env(), dom, *dom.networks[i], seen));
  }
  return out;
}

Napi::Value detach_devices(Domain& dom, Args info, Fault*) {
  return Napi::Boolean::New(info.Env(), dom.detach_devices());
}

Napi::Value attach_devices(Domain& dom, Args, Fault* fault) {
  dom.attach_devices(fault);
  return {};
}

// setBackend(machine, domid, index, { holds, delayUs, seed, neverCloses }): the disks come first
Napi::Value set_backend(Domain& dom, Args info, Fault*) {
  const auto backends = dom.backends();
  const uint32_t index = arg_u32(info, 2);
  const auto how = arg_object(info, 3);
  need_range(index, 1, backends.size(), "devices");
  const std::string holds = text_field(how, "holds");
  need(holds == "nothing" || holds == "requests" || holds == "answers", "nothing to hold");
  BackendBehaviour behaviour;
  behaviour.holds = holds == "answers"    ? BackendBehaviour::kAnswers
                    : holds == "requests" ? BackendBehaviour::kRequests
                                          : BackendBehaviour::kNothing;
  behaviour.delay_us = field(how, "delayUs");
  need(behaviour.delay_us <= 60'000'000, "more than a minute");
  behaviour.seed = field(how, "seed");
  behaviour.never_closes = flag_field(how, "neverCloses");
  backends[index]->behave(behaviour);
  return {};
}

}  // namespace

void add_device_calls(Napi::Object ns) {
  add<on_domain<add_disk>>(ns, "addDisk");
  add<on_domain<add_network>>(ns, "addNetwork");
  add<on_domain<disks>>(ns, "disks");
  add<on_domain<networks>>(ns, "networks");
  add<on_domain<detach_devices>>(ns, "detachDevices");
  add<on_domain<attach_devices>>(ns, "attachDevices");
  add<on_domain<set_backend>>(ns, "setBackend");
}

}  // namespace dormouse::binding
