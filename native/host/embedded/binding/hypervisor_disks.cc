// Namespace `hypervisor`: a domain's block devices.
#include <string>

#include "host/embedded/binding/hypervisor_calls.h"
#include "host/embedded/block_frontend.h"

namespace dormouse::binding {

namespace {

using embedded::BackendBehaviour;
using embedded::BlockFrontend;
using embedded::Domain;

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

Napi::Value disks(Domain& dom, Args info, Fault*) {
  Napi::Array out = Napi::Array::New(info.Env(), dom.disks.size());
  for (uint32_t i = 0; i < dom.disks.size(); i++) {
    embedded::BlockDevice& disk = *dom.disks[i];
    // What a guest that has yet to meet these devices remembers of others says nothing.
    BlockFrontend::Seen seen{embedded::kXenbusInitialising, 0};
    const bool has = dom.guest && i < dom.guest->disks;
    if (has) seen = BlockFrontend::look(dom, i);
    const bool met = has && (dom.disks_connected || seen.state == embedded::kXenbusClosed);
    if (!met) seen = {embedded::kXenbusInitialising, 0};
    Napi::Object one = Napi::Object::New(info.Env());
    one.Set("frontend", num(info.Env(), seen.state));
    one.Set("backend", num(info.Env(), met ? uint32_t(disk.state()) : embedded::kXenbusInitWait));
    one.Set("ringRef", num(info.Env(), seen.ring_ref));
    one.Set("sectors", num(info.Env(), disk.sectors()));
    out.Set(i, one);
  }
  return out;
}

Napi::Value detach_disks(Domain& dom, Args info, Fault*) {
  return Napi::Boolean::New(info.Env(), dom.detach_disks());
}

Napi::Value attach_disks(Domain& dom, Args, Fault* fault) {
  dom.attach_disks(fault);
  return {};
}

// setBackend(machine, domid, index, { holds, delayUs, seed, neverCloses })
Napi::Value set_backend(Domain& dom, Args info, Fault*) {
  const uint32_t index = arg_u32(info, 2);
  const auto how = arg_object(info, 3);
  need_range(index, 1, dom.disks.size(), "disks");
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
  dom.disks[index]->behave(behaviour);
  return {};
}

}  // namespace

void add_disk_calls(Napi::Object ns) {
  add<on_domain<add_disk>>(ns, "addDisk");
  add<on_domain<disks>>(ns, "disks");
  add<on_domain<detach_disks>>(ns, "detachDisks");
  add<on_domain<attach_disks>>(ns, "attachDisks");
  add<on_domain<set_backend>>(ns, "setBackend");
}

}  // namespace dormouse::binding
