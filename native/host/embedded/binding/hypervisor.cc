// Namespace `hypervisor`: the embedded host's hypercalls and toolstack calls, for its own process.
// src/host/embedded/hypervisor.ts documents each.
#include <unistd.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "host/embedded/binding/hypervisor_calls.h"
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
    static const char* names[] = {"suspend-ack", "shutdown", "device"};
    const bool shutdown = event->kind == Event::kShutdown;
    out.Set("domid", num(env, event->domid));
    out.Set("event", names[event->kind]);
    out.Set("reason", shutdown ? Napi::String::New(env, reason_name(event->reason)) : env.Null());
    callback.Call({out});
  }
  delete event;
}

Napi::Value create_machine(Args info) {
  need(info[1].IsFunction(), "argument 2 is no function");
  const auto options = arg_object(info, 0);
  const uint64_t frames = field(options, "frames");
  need(frames >= 1024 && frames < (1ull << 32), "no number of frames a machine may have");
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
  if (!machine->hypervisor.machine.init(frames, uint32_t(field(options, "seed")), &fault))
    return failed(info.Env(), fault);
  const uint64_t id = Registry<HostedMachine>::get().add(std::move(machine));
  // vCPU threads must be gone before the process tears its event loop down.
  info.Env().AddCleanupHook([id] { Registry<HostedMachine>::get().release(id, 0); });
  return num(info.Env(), id);
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
  const auto options = arg_object(info, 1);
  const uint64_t number = field(options, "domid"), vcpus = field(options, "vcpus");
  need(number >= 1 && number <= 32751, "no domain id");
  need(vcpus >= 1 && vcpus <= embedded::kMaxVcpus, "no number of vCPUs");
  const auto domid = uint16_t(number);
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
  if (fault) return failed(info.Env(), fault);
  return {};
}

Napi::Value destroy(Args info) {
  const auto machine = machine_of(info);
  if (domain_of(info, machine)) machine->hypervisor.domains.erase(uint16_t(arg_u32(info, 1)));
  return {};
}

// --- building

Napi::Value boot(Domain& dom, Args info, Fault* fault) {
  const auto guest = arg_object(info, 2);
  static const char* programs[] = {"idle",    "counter", "writer", "churner",
                                   "crasher", "disker",  "talker"};
  const std::string program = text_field(guest, "program");
  embedded::GuestOptions options;
  options.program = embedded::kPrograms;
  for (uint32_t i = 0; i < embedded::kPrograms; i++)
    if (program == programs[i]) options.program = i;
  need(options.program < embedded::kPrograms, "no guest program of that name");
  options.pages = field(guest, "pages");
  options.seed = field(guest, "seed");
  options.steps = field(guest, "steps");
  options.rate = field(guest, "rate");
  options.working_set = field(guest, "workingSetPages");
  options.skew = field(guest, "skewPercent");
  options.fill = field(guest, "fillPercent");
  options.crash_at = field(guest, "crashAt");
  options.deaf = flag_field(guest, "deaf");
  options.store_port = uint32_t(field(guest, "storePort"));
  options.console_port = uint32_t(field(guest, "consolePort"));
  need(options.skew <= 100 && options.fill <= 100, "more than 100 percent");
  need(options.pages >= 1 && options.pages < (1ull << 32), "no number of pages");
  if (!embedded::boot_guest(dom, options, fault)) return {};
  Napi::Object out = Napi::Object::New(info.Env());
  const embedded::GuestText& text = *dom.guest;
  out.Set("storePfn", num(info.Env(), text.store_pfn));
  out.Set("consolePfn", num(info.Env(), text.console_pfn));
  out.Set("storeMfn", num(info.Env(), dom.mfn(text.store_pfn)));
  out.Set("consoleMfn", num(info.Env(), dom.mfn(text.console_pfn)));
  return out;
}

embedded::Geometry geometry_of(const Napi::Object& object) {
  embedded::Geometry geometry;
  geometry.nr_pfns = field(object, "nrPfns");
  need(geometry.nr_pfns >= 1 && geometry.nr_pfns < (1ull << 32), "no size of a pfn space");
  geometry.guest_width = uint32_t(field(object, "guestWidth"));
  geometry.p2m_generation = field(object, "p2mGeneration");
  const auto leaves = array_field(object, "p2mFrames");
  for (uint32_t i = 0; i < leaves.Length(); i++)
    geometry.p2m_frames.push_back(number_at(leaves, i));
  return geometry;
}

Napi::Value set_geometry(Domain& dom, Args info, Fault* fault) {
  dom.set_geometry(geometry_of(arg_object(info, 2)), fault);
  return {};
}

std::vector<embedded::PfnRun> runs_of(const Napi::Array& list) {
  std::vector<embedded::PfnRun> runs(list.Length());
  for (uint32_t i = 0; i < runs.size(); i++) {
    const auto pair = object_at(list, i).As<Napi::Array>();
    runs[i] = {number_at(pair, 0), number_at(pair, 1)};
  }
  return runs;
}

std::vector<uint64_t> pfns_of(const Napi::Array& list) {
  std::vector<uint64_t> pfns(list.Length());
  for (uint32_t i = 0; i < pfns.size(); i++) pfns[i] = number_at(list, i);
  return pfns;
}

Napi::Value populate(Domain& dom, Args info, Fault* fault) {
  dom.populate(runs_of(arg_array(info, 2)), fault);
  return {};
}

// beginRewrite(machine, domid, part or null)
Napi::Value begin_rewrite(Domain& dom, Args info, Fault* fault) {
  if (info[2].IsNull()) {
    dom.begin_rewrite(fault);
    return {};
  }
  const auto object = arg_object(info, 2);
  embedded::RewritePart part;
  part.geometry = geometry_of(object_field(object, "geometry"));
  part.gained = runs_of(array_field(object, "gained"));
  part.lost = runs_of(array_field(object, "lost"));
  part.tables = pfns_of(array_field(object, "tables"));
  part.unpinned = pfns_of(array_field(object, "unpinned"));
  dom.begin_rewrite(std::move(part), fault);
  return {};
}

// takeTables(machine, domid, [{ pfn, level }])
Napi::Value take_tables(Domain& dom, Args info, Fault* fault) {
  const auto tables = arg_array(info, 2);
  std::vector<embedded::PinnedTable> pins(tables.Length());
  for (uint32_t i = 0; i < pins.size(); i++) {
    const auto table = object_at(tables, i);
    const uint64_t level = field(table, "level");
    need(level >= 1 && level <= 4, "no level of a page table");
    pins[i] = {field(table, "pfn"), int(level)};
  }
  dom.take_tables(pins, fault);
  return {};
}

Napi::Value finish_in_place(Domain& dom, Args info, Fault* fault) {
  dom.finish_in_place(fault);
  return {};
}

Napi::Value frames(Domain& dom, Args info, Fault*) {
  const auto pfns = arg_array(info, 2);
  Napi::Array out = Napi::Array::New(info.Env(), pfns.Length());
  for (uint32_t i = 0; i < pfns.Length(); i++) {
    const uint64_t pfn = number_at(pfns, i);
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
  const auto page = arg_bytes(info, 2);
  need(page.ByteLength() == host::kPageSize, "not one page");
  std::memcpy(static_cast<void*>(&dom.shared_info()), page.Data(), host::kPageSize);
  return {};
}

Napi::Value pin(Domain& dom, Args info, Fault* fault) {
  const auto tables = arg_array(info, 2);
  if (dom.type != DomainType::pv) fault->raise("DOMAIN_WRONG_STATE", "not a pv domain");
  std::lock_guard<std::mutex> lock(dom.mmu);
  PageTypes types(dom);
  for (uint32_t i = 0; i < tables.Length() && !*fault; i++) {
    const auto table = object_at(tables, i);
    const uint64_t pfn = field(table, "pfn"), level = field(table, "level");
    need(level >= 1 && level <= 4, "no level of a page table");
    fault->pfn = pfn;
    if (!dom.has_frame(pfn))
      fault->raise("PAGE_TABLE_INVALID", "the page to pin has no frame");
    else
      types.pin(dom.mfn(pfn), int(level), fault);
  }
  return {};
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
  return {};
}

Napi::Value set_vcpu(Domain& dom, Args info, Fault* fault) {
  const uint32_t id = arg_u32(info, 2);
  const auto blob = arg_bytes(info, 3);
  need_range(id, 1, dom.vcpus.size(), "vCPUs");
  need(blob.ByteLength() == sizeof(embedded::VcpuContext), "no vCPU context");
  embedded::VcpuContext context;
  std::memcpy(&context, blob.Data(), sizeof context);
  dom.set_vcpu(id, context, fault);
  return {};
}

Napi::Value get_vcpu(Domain& dom, Args info, Fault* fault) {
  const uint32_t id = arg_u32(info, 2);
  need_range(id, 1, dom.vcpus.size(), "vCPUs");
  if (!dom.held()) fault->raise("DOMAIN_WRONG_STATE", "the domain is running");
  return bytes(info.Env(), &dom.vcpus[id]->context, sizeof(embedded::VcpuContext));
}

Napi::Value finish(Domain& dom, Args info, Fault* fault) {
  dom.finish(fault);
  return {};
}

}  // namespace

Napi::Object init_hypervisor(Napi::Env env) {
  Napi::Object ns = Napi::Object::New(env);
  add<create_machine>(ns, "createMachine");
  add<release<HostedMachine>>(ns, "destroyMachine");
  add<machine_info>(ns, "machineInfo");
  add<machine_layout>(ns, "machineLayout");
  add<domids>(ns, "domids");
  add<create_shell>(ns, "createShell");
  add<destroy>(ns, "destroy");
  add<on_domain<boot>>(ns, "boot");
  add<on_domain<begin_rewrite>>(ns, "beginRewrite");
  add<on_domain<take_tables>>(ns, "takeTables");
  add<on_domain<finish_in_place>>(ns, "finishInPlace");
  add<on_domain<set_geometry>>(ns, "setGeometry");
  add<on_domain<populate>>(ns, "populate");
  add<on_domain<frames>>(ns, "frames");
  add<on_domain<shared_info_frame>>(ns, "sharedInfoFrame");
  add<on_domain<read_shared_info>>(ns, "readSharedInfo");
  add<on_domain<write_shared_info>>(ns, "writeSharedInfo");
  add<on_domain<pin>>(ns, "pin");
  add<on_domain<unpin>>(ns, "unpin");
  add<on_domain<set_vcpu>>(ns, "setVcpu");
  add<on_domain<get_vcpu>>(ns, "getVcpu");
  add<on_domain<finish>>(ns, "finish");
  add_domain_calls(ns);
  add_device_calls(ns);
  return ns;
}

}  // namespace dormouse::binding
