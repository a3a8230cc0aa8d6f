// Namespace `hypervisor`: the embedded host's hypercalls and toolstack calls, for its own process.
// src/host/embedded/hypervisor.ts documents each.
#include <unistd.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "binding/hypervisor_calls.h"
#include "host/embedded/domain_builder.h"
#include "host/embedded/page_types.h"

namespace dormouse::binding {

namespace {

using embedded::Domain;
using embedded::DomainType;
using embedded::Event;
using embedded::PageTypes;

// --- machines

void deliver(Napi::Env env, Napi::Function callback, Event* event) {
  if (env != nullptr) {
    Napi::Object out = Napi::Object::New(env);
    const bool ack = event->kind == Event::kSuspendAck;
    out.Set("domid", num(env, event->domid));
    out.Set("event", ack ? "suspend-ack" : "shutdown");
    out.Set("reason", ack ? env.Null() : Napi::String::New(env, reason_name(event->reason)));
    callback.Call({out});
  }
  delete event;
}

Napi::Value create_machine(Args info) {
  DM_ASSERT(info.Length() == 2 && info[0].IsObject() && info[1].IsFunction());
  const auto options = info[0].As<Napi::Object>();
  const uint64_t frames = field(options, "frames");
  DM_ASSERT(frames >= 1024 && frames < (1ull << 32));
  auto machine = std::make_shared<HostedMachine>();
  machine->events = Napi::ThreadSafeFunction::New(info.Env(), info[1].As<Napi::Function>(),
                                                  "dormouse-hypervisor", 0, 1);
  machine->events.Unref(info.Env());
  HostedMachine* raw = machine.get();
  machine->hypervisor.machine.on_event = [raw](const Event& event) {
    auto* copy = new Event(event);
    if (raw->events.NonBlockingCall(copy, deliver) != napi_ok) delete copy;
  };
  Fault fault;
  if (!machine->hypervisor.machine.init(frames, uint32_t(field(options, "seed")), &fault)) {
    throw_fault(info.Env(), fault);
    return info.Env().Undefined();
  }
  const uint32_t id = Registry<HostedMachine>::get().add(std::move(machine));
  // vCPU threads must be gone before the process tears its event loop down.
  info.Env().AddCleanupHook([id] { Registry<HostedMachine>::get().release(id); });
  return num(info.Env(), id);
}

Napi::Value destroy_machine(Args info) {
  Registry<HostedMachine>::get().release(arg_u32(info, 0));
  return info.Env().Undefined();
}

Napi::Value machine_info(Args info) {
  const auto machine = machine_of(info);
  uint64_t quarantined = 0;
  for (const auto& [domid, domain] : machine->hypervisor.domains) {
    std::lock_guard<std::mutex> lock(domain->mmu);
    quarantined += domain->quarantined.size();
  }
  Napi::Object out = Napi::Object::New(info.Env());
  out.Set("frames", num(info.Env(), machine->hypervisor.machine.frames()));
  out.Set("freeFrames", num(info.Env(), machine->hypervisor.machine.free_frames()));
  out.Set("quarantinedFrames", num(info.Env(), quarantined));
  return out;
}

Napi::Value machine_layout(Args info) {
  const auto machine = machine_of(info);
  const embedded::Machine& m = machine->hypervisor.machine;
  Napi::Object out = Napi::Object::New(info.Env());
  out.Set("pid", num(info.Env(), uint64_t(getpid())));
  out.Set("frames", num(info.Env(), m.frames()));
  out.Set("memoryFd", num(info.Env(), uint64_t(m.memory.fd())));
  out.Set("m2pFd", num(info.Env(), uint64_t(m.m2p_array.fd())));
  out.Set("statesFd", num(info.Env(), uint64_t(m.states.fd())));
  out.Set("touchedFd", num(info.Env(), uint64_t(m.touched_array.fd())));
  return out;
}

Napi::Value domids(Args info) {
  const auto machine = machine_of(info);
  Napi::Array out = Napi::Array::New(info.Env());
  for (const auto& [domid, domain] : machine->hypervisor.domains)
    out.Set(out.Length(), num(info.Env(), domid));
  return out;
}

Napi::Value create_shell(Args info) {
  const auto machine = machine_of(info);
  const auto options = info[1].As<Napi::Object>();
  const auto domid = uint16_t(field(options, "domid"));
  const uint64_t vcpus = field(options, "vcpus");
  DM_ASSERT(domid >= 1 && domid <= 32751 && vcpus >= 1 && vcpus <= embedded::kMaxVcpus);
  const bool pvh = text_field(options, "type") == "pvh";
  Fault fault;
  auto& domains = machine->hypervisor.domains;
  if (domains.count(domid)) {
    fault.raise("DOMAIN_EXISTS", "there is a domain " + std::to_string(domid));
  } else {
    auto domain = std::make_unique<Domain>(machine->hypervisor.machine, domid,
                                           pvh ? DomainType::pvh : DomainType::pv, uint32_t(vcpus),
                                           field(options, "maxPages"));
    if (domain->init(&fault)) domains[domid] = std::move(domain);
  }
  if (fault) throw_fault(info.Env(), fault);
  return info.Env().Undefined();
}

Napi::Value destroy(Args info) {
  const auto machine = machine_of(info);
  if (domain_of(info, machine)) machine->hypervisor.domains.erase(uint16_t(arg_u32(info, 1)));
  return info.Env().Undefined();
}

// --- building

Napi::Value boot(Domain& dom, Args info, Fault* fault) {
  const auto guest = info[2].As<Napi::Object>();
  static const char* programs[] = {"idle", "counter", "writer", "churner", "crasher"};
  const std::string program = text_field(guest, "program");
  embedded::GuestOptions options;
  options.program = embedded::kPrograms;
  for (uint32_t i = 0; i < embedded::kPrograms; i++)
    if (program == programs[i]) options.program = i;
  DM_ASSERT(options.program < embedded::kPrograms);
  options.pages = field(guest, "pages");
  options.seed = field(guest, "seed");
  options.steps = field(guest, "steps");
  options.rate = field(guest, "rate");
  options.working_set = field(guest, "workingSetPages");
  options.skew = field(guest, "skewPercent");
  options.fill = field(guest, "fillPercent");
  options.crash_at = field(guest, "crashAt");
  options.deaf = guest.Get("deaf").ToBoolean().Value();
  options.store_port = uint32_t(field(guest, "storePort"));
  options.console_port = uint32_t(field(guest, "consolePort"));
  DM_ASSERT(options.skew <= 100 && options.fill <= 100 && options.pages < (1ull << 32));
  if (!embedded::boot_guest(dom, options, fault)) return info.Env().Undefined();
  Napi::Object out = Napi::Object::New(info.Env());
  const embedded::GuestText& text = *dom.guest;
  out.Set("storePfn", num(info.Env(), text.store_pfn));
  out.Set("consolePfn", num(info.Env(), text.console_pfn));
  out.Set("storeMfn", num(info.Env(), dom.mfn(text.store_pfn)));
  out.Set("consoleMfn", num(info.Env(), dom.mfn(text.console_pfn)));
  return out;
}

Napi::Value set_geometry(Domain& dom, Args info, Fault* fault) {
  const auto object = info[2].As<Napi::Object>();
  embedded::Geometry geometry;
  geometry.nr_pfns = field(object, "nrPfns");
  DM_ASSERT(geometry.nr_pfns >= 1 && geometry.nr_pfns < (1ull << 32));
  geometry.guest_width = uint32_t(field(object, "guestWidth"));
  geometry.p2m_generation = field(object, "p2mGeneration");
  const auto leaves = object.Get("p2mFrames").As<Napi::Array>();
  for (uint32_t i = 0; i < leaves.Length(); i++)
    geometry.p2m_frames.push_back(uint64_t(leaves.Get(i).As<Napi::Number>().Int64Value()));
  dom.set_geometry(std::move(geometry), fault);
  return info.Env().Undefined();
}

Napi::Value populate(Domain& dom, Args info, Fault* fault) {
  const auto list = info[2].As<Napi::Array>();
  std::vector<embedded::PfnRun> runs(list.Length());
  for (uint32_t i = 0; i < list.Length(); i++) {
    const auto pair = list.Get(i).As<Napi::Array>();
    runs[i] = {uint64_t(pair.Get(0u).As<Napi::Number>().Int64Value()),
               uint64_t(pair.Get(1u).As<Napi::Number>().Int64Value())};
  }
  dom.populate(runs, fault);
  return info.Env().Undefined();
}

Napi::Value begin_rewrite(Domain& dom, Args info, Fault* fault) {
  dom.begin_rewrite(fault);
  return info.Env().Undefined();
}

Napi::Value frames(Domain& dom, Args info, Fault*) {
  const auto pfns = info[2].As<Napi::Array>();
  Napi::Array out = Napi::Array::New(info.Env(), pfns.Length());
  for (uint32_t i = 0; i < pfns.Length(); i++) {
    const auto pfn = uint64_t(pfns.Get(i).As<Napi::Number>().Int64Value());
    out.Set(i, dom.has_frame(pfn) ? Napi::Value(num(info.Env(), dom.mfn(pfn))) : info.Env().Null());
  }
  return out;
}

Napi::Value shared_info_frame(Domain& dom, Args info, Fault*) {
  return num(info.Env(), dom.shared_info_mfn);
}

Napi::Value read_shared_info(Domain& dom, Args info, Fault*) {
  return bytes(info.Env(), &dom.shared_info(), host::kPageSize);
}

Napi::Value write_shared_info(Domain& dom, Args info, Fault*) {
  const auto page = info[2].As<Napi::Buffer<uint8_t>>();
  DM_ASSERT(page.Length() == host::kPageSize);
  std::memcpy(static_cast<void*>(&dom.shared_info()), page.Data(), host::kPageSize);
  return info.Env().Undefined();
}

Napi::Value pin(Domain& dom, Args info, Fault* fault) {
  const auto tables = info[2].As<Napi::Array>();
  if (dom.type != DomainType::pv) fault->raise("DOMAIN_WRONG_STATE", "not a pv domain");
  std::lock_guard<std::mutex> lock(dom.mmu);
  PageTypes types(dom);
  for (uint32_t i = 0; i < tables.Length() && !*fault; i++) {
    const auto table = tables.Get(i).As<Napi::Object>();
    const uint64_t pfn = field(table, "pfn"), level = field(table, "level");
    DM_ASSERT(level >= 1 && level <= 4);
    fault->pfn = pfn;
    if (!dom.has_frame(pfn))
      fault->raise("PAGE_TABLE_INVALID", "the page to pin has no frame");
    else
      types.pin(dom.mfn(pfn), int(level), fault);
  }
  return info.Env().Undefined();
}

Napi::Value unpin(Domain& dom, Args info, Fault* fault) {
  const uint64_t pfn = arg_u64(info, 2);
  dom.hold();
  {
    std::lock_guard<std::mutex> lock(dom.mmu);
    if (!dom.has_frame(pfn) || !PageTypes(dom).unpin(dom.mfn(pfn)))
      fault->raise("DOMAIN_WRONG_STATE", "the page is not pinned");
  }
  dom.release();
  return info.Env().Undefined();
}

Napi::Value set_vcpu(Domain& dom, Args info, Fault* fault) {
  const uint32_t id = arg_u32(info, 2);
  const auto blob = info[3].As<Napi::Buffer<uint8_t>>();
  DM_ASSERT(id < dom.vcpus.size() && blob.Length() == sizeof(embedded::VcpuContext));
  embedded::VcpuContext context;
  std::memcpy(&context, blob.Data(), sizeof context);
  dom.set_vcpu(id, context, fault);
  return info.Env().Undefined();
}

Napi::Value get_vcpu(Domain& dom, Args info, Fault* fault) {
  const uint32_t id = arg_u32(info, 2);
  DM_ASSERT(id < dom.vcpus.size());
  if (!dom.held()) fault->raise("DOMAIN_WRONG_STATE", "the domain is running");
  return bytes(info.Env(), &dom.vcpus[id]->context, sizeof(embedded::VcpuContext));
}

Napi::Value finish(Domain& dom, Args info, Fault* fault) {
  dom.finish(fault);
  return info.Env().Undefined();
}

}  // namespace

Napi::Object init_hypervisor(Napi::Env env) {
  Napi::Object ns = Napi::Object::New(env);
  add_call(ns, "createMachine", create_machine);
  add_call(ns, "destroyMachine", destroy_machine);
  add_call(ns, "machineInfo", machine_info);
  add_call(ns, "machineLayout", machine_layout);
  add_call(ns, "domids", domids);
  add_call(ns, "createShell", create_shell);
  add_call(ns, "destroy", destroy);
  add_call(ns, "boot", on_domain<boot>);
  add_call(ns, "beginRewrite", on_domain<begin_rewrite>);
  add_call(ns, "setGeometry", on_domain<set_geometry>);
  add_call(ns, "populate", on_domain<populate>);
  add_call(ns, "frames", on_domain<frames>);
  add_call(ns, "sharedInfoFrame", on_domain<shared_info_frame>);
  add_call(ns, "readSharedInfo", on_domain<read_shared_info>);
  add_call(ns, "writeSharedInfo", on_domain<write_shared_info>);
  add_call(ns, "pin", on_domain<pin>);
  add_call(ns, "unpin", on_domain<unpin>);
  add_call(ns, "setVcpu", on_domain<set_vcpu>);
  add_call(ns, "getVcpu", on_domain<get_vcpu>);
  add_call(ns, "finish", on_domain<finish>);
  add_domain_calls(ns);
  return ns;
}

}  // namespace dormouse::binding
