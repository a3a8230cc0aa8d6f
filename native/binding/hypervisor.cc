// Namespace `hypervisor`: the embedded host's hypercalls and toolstack calls, for its own process.
// src/host/embedded/hypervisor.ts documents each.
#include "host/embedded/hypervisor.h"

#include <unistd.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "binding/object_util.h"
#include "binding/registry.h"
#include "host/embedded/domain_builder.h"
#include "host/embedded/page_types.h"
#include "host/embedded/programs/programs.h"

namespace dormouse::binding {

namespace {

using embedded::Domain;
using embedded::DomainType;
using embedded::Event;
using embedded::PageTypes;
using Args = const Napi::CallbackInfo&;

struct HostedMachine {
  embedded::Hypervisor hypervisor;
  Napi::ThreadSafeFunction events;

  ~HostedMachine() {
    hypervisor.domains.clear();
    events.Release();
  }
};

const char* reason_name(int reason) {
  static const char* names[] = {"poweroff", "reboot", "suspend", "crash"};
  return names[reason];
}

std::shared_ptr<HostedMachine> machine_of(Args info) {
  auto machine = Registry<HostedMachine>::get().find(arg_u32(info, 0));
  DM_ASSERT(machine);
  return machine;
}

// The domain of (machine, domid, ...), or null with DOMAIN_NOT_FOUND thrown.
Domain* domain_of(Args info, const std::shared_ptr<HostedMachine>& machine) {
  Domain* domain = machine->hypervisor.find(uint16_t(arg_u32(info, 1)));
  if (domain) return domain;
  Fault fault;
  fault.raise("DOMAIN_NOT_FOUND", "no domain " + std::to_string(arg_u32(info, 1)));
  throw_fault(info.Env(), fault);
  return nullptr;
}

// Wraps a function of one domain: looks it up, calls, throws the fault that was raised.
using DomainCall = Napi::Value (*)(Domain&, Args, Fault*);
template <DomainCall call>
Napi::Value on_domain(Args info) {
  const auto machine = machine_of(info);
  Domain* domain = domain_of(info, machine);
  if (!domain) return info.Env().Undefined();
  Fault fault;
  const Napi::Value result = call(*domain, info, &fault);
  if (fault) throw_fault(info.Env(), fault);
  return result;
}

Napi::Value bytes(Napi::Env env, const void* data, size_t length) {
  return Napi::Buffer<uint8_t>::Copy(env, static_cast<const uint8_t*>(data), length);
}

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

// --- state of a domain

Napi::Value shutdown_of(Napi::Env env, Domain& dom) {
  std::lock_guard<std::mutex> lock(dom.shutdown_lock);
  if (dom.shutdown_reason < 0 || dom.shutdown_pending) return env.Null();
  return Napi::String::New(env, reason_name(dom.shutdown_reason));
}

Napi::Value domain_info(Domain& dom, Args info, Fault*) {
  Napi::Env env = info.Env();
  uint64_t cpu_time = 0;
  bool running = false, blocked = true;
  for (const auto& vcpu : dom.vcpus) {
    const uint32_t state = vcpu->state;
    cpu_time += vcpu->cpu_time_ns();
    running |= state == embedded::Vcpu::kRun;
    blocked &= state == embedded::Vcpu::kAsleep || state == embedded::Vcpu::kBlocked;
  }
  Napi::Object out = Napi::Object::New(env);
  out.Set("domid", num(env, dom.domid));
  out.Set("type", dom.type == DomainType::pvh ? "pvh" : "pv");
  out.Set("vcpus", num(env, dom.vcpus.size()));
  out.Set("pages", num(env, dom.frames_owned()));
  out.Set("maxPages", num(env, dom.max_pages));
  out.Set("nrPfns", num(env, dom.nr_pfns));
  out.Set("running", running && !dom.held());
  out.Set("blocked", blocked);
  out.Set("paused", dom.pause_count > 0);
  out.Set("shutdown", shutdown_of(env, dom));
  out.Set("building", dom.building);
  out.Set("cpuTimeNs", num(env, cpu_time));
  out.Set("snapshotEpoch", num(env, dom.cow_epoch));
  out.Set("logDirty", bool(dom.dirty_on));
  std::lock_guard<std::mutex> lock(dom.shutdown_lock);
  out.Set("crashText", dom.crash_text);
  return out;
}

Napi::Value domain_layout(Domain& dom, Args info, Fault* fault) {
  Napi::Object out = Napi::Object::New(info.Env());
  if (!dom.nr_pfns) fault->raise("DOMAIN_WRONG_STATE", "the domain has no geometry yet");
  out.Set("nrPfns", num(info.Env(), dom.nr_pfns));
  if (dom.nr_pfns) {
    out.Set("metaFd", num(info.Env(), uint64_t(dom.meta.fd())));
    out.Set("metaSnapFd", num(info.Env(), uint64_t(dom.meta_snap.fd())));
    out.Set("cowFd", num(info.Env(), uint64_t(dom.cow_store.fd())));
  }
  return out;
}

Napi::Value geometry_object(Napi::Env env, const embedded::Geometry& geometry) {
  Napi::Object out = Napi::Object::New(env);
  Napi::Array leaves = Napi::Array::New(env, geometry.p2m_frames.size());
  for (uint32_t i = 0; i < geometry.p2m_frames.size(); i++)
    leaves.Set(i, num(env, geometry.p2m_frames[i]));
  out.Set("nrPfns", num(env, geometry.nr_pfns));
  out.Set("guestWidth", num(env, geometry.guest_width));
  out.Set("p2mFrames", leaves);
  out.Set("p2mGeneration", num(env, geometry.p2m_generation));
  return out;
}

Napi::Value geometry(Domain& dom, Args info, Fault*) {
  return geometry_object(info.Env(), dom.geometry());
}

Napi::Value progress(Domain& dom, Args info, Fault*) {
  Napi::Array steps = Napi::Array::New(info.Env());
  Napi::Array counters = Napi::Array::New(info.Env());
  const bool counts = dom.guest && (dom.guest->program == embedded::kCounter ||
                                    dom.guest->program == embedded::kCrasher);
  for (const auto& vcpu : dom.vcpus) {
    steps.Set(vcpu->id, num(info.Env(), vcpu->steps));
    if (!counts) continue;
    const uint64_t pfn = embedded::counter_pfn(*dom.guest, vcpu->id);
    if (dom.has_frame(pfn))
      counters.Set(vcpu->id, num(info.Env(), dom.machine.words(dom.mfn(pfn))[0]));
  }
  Napi::Object out = Napi::Object::New(info.Env());
  out.Set("steps", steps);
  out.Set("counters", counters);
  return out;
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

// --- run state

Napi::Value pause(Domain& dom, Args info, Fault*) {
  dom.pause();
  return info.Env().Undefined();
}

Napi::Value unpause(Domain& dom, Args info, Fault* fault) {
  dom.unpause(fault);
  return info.Env().Undefined();
}

Napi::Value shutdown_request(Domain& dom, Args info, Fault*) {
  const std::string reason = info[2].As<Napi::String>().Utf8Value();
  dom.shutdown_request(reason == "suspend"  ? embedded::kSuspend
                       : reason == "reboot" ? embedded::kReboot
                                            : embedded::kPoweroff);
  return info.Env().Undefined();
}

Napi::Value shutdown_cancel(Domain& dom, Args info, Fault*) {
  return Napi::Boolean::New(info.Env(), dom.shutdown_cancel());
}

Napi::Value resume_in_place(Domain& dom, Args info, Fault* fault) {
  dom.resume_in_place(fault);
  return info.Env().Undefined();
}

// --- snapshots and dirty log

Napi::Value snapshot(Domain& dom, Args info, Fault* fault) {
  Napi::Env env = info.Env();
  embedded::SnapshotState state;
  if (!dom.snapshot(&state, fault)) return env.Undefined();
  Napi::Array vcpus = Napi::Array::New(env, state.vcpus.size());
  for (uint32_t i = 0; i < state.vcpus.size(); i++)
    vcpus.Set(i, bytes(env, &state.vcpus[i], sizeof(embedded::VcpuContext)));
  Napi::Object out = Napi::Object::New(env);
  out.Set("epoch", num(env, state.epoch));
  out.Set("pauseNs", num(env, state.pause_ns));
  out.Set("geometry", geometry_object(env, state.geometry));
  out.Set("vcpus", vcpus);
  out.Set("sharedInfo", bytes(env, state.shared_info.get(), host::kPageSize));
  return out;
}

Napi::Value cow_pages(Domain& dom, Args info, Fault*) { return num(info.Env(), dom.cow_pages()); }

Napi::Value release_snapshot(Domain& dom, Args info, Fault*) {
  return Napi::Boolean::New(info.Env(), dom.release_snapshot(arg_u64(info, 2)));
}

Napi::Value log_dirty_on(Domain& dom, Args info, Fault* fault) {
  if (dom.dirty_on)
    fault->raise("DOMAIN_WRONG_STATE", "its writes are being logged already");
  else
    dom.log_dirty_on();
  return info.Env().Undefined();
}

template <bool clear>
Napi::Value log_dirty_read(Domain& dom, Args info, Fault* fault) {
  auto bitmap = Napi::Buffer<uint8_t>::New(info.Env(), dom.bitmap_bytes());
  if (dom.dirty_on)
    dom.log_dirty_read(clear, bitmap.Data());
  else
    fault->raise("DOMAIN_WRONG_STATE", "its writes are not being logged");
  return bitmap;
}

Napi::Value log_dirty_off(Domain& dom, Args info, Fault*) {
  if (dom.dirty_on) dom.log_dirty_off();
  return info.Env().Undefined();
}

Napi::Value poke(Domain& dom, Args info, Fault* fault) {
  const uint64_t pfn = arg_u64(info, 2), index = arg_u64(info, 3);
  bool lossless;
  const uint64_t entry = info[4].As<Napi::BigInt>().Uint64Value(&lossless);
  DM_ASSERT(index < 512);
  if (!dom.has_frame(pfn)) {
    fault->raise("DOMAIN_WRONG_STATE", "the page has no frame");
    return info.Env().Undefined();
  }
  std::lock_guard<std::mutex> lock(dom.mmu);
  dom.before_write(dom.mfn(pfn));
  __atomic_store_n(dom.machine.words(dom.mfn(pfn)) + index, entry, __ATOMIC_RELEASE);
  dom.tlb_generation++;
  return info.Env().Undefined();
}

}  // namespace

Napi::Object init_hypervisor(Napi::Env env) {
  Napi::Object ns = Napi::Object::New(env);
  const auto add = [&](const char* name, Napi::Value (*call)(Args)) {
    ns.Set(name, Napi::Function::New(env, call, name));
  };
  add("createMachine", create_machine);
  add("destroyMachine", destroy_machine);
  add("machineInfo", machine_info);
  add("machineLayout", machine_layout);
  add("domids", domids);
  add("createShell", create_shell);
  add("destroy", destroy);
  add("domainInfo", on_domain<domain_info>);
  add("domainLayout", on_domain<domain_layout>);
  add("geometry", on_domain<geometry>);
  add("progress", on_domain<progress>);
  add("boot", on_domain<boot>);
  add("setGeometry", on_domain<set_geometry>);
  add("populate", on_domain<populate>);
  add("frames", on_domain<frames>);
  add("sharedInfoFrame", on_domain<shared_info_frame>);
  add("readSharedInfo", on_domain<read_shared_info>);
  add("writeSharedInfo", on_domain<write_shared_info>);
  add("pin", on_domain<pin>);
  add("unpin", on_domain<unpin>);
  add("setVcpu", on_domain<set_vcpu>);
  add("getVcpu", on_domain<get_vcpu>);
  add("finish", on_domain<finish>);
  add("pause", on_domain<pause>);
  add("unpause", on_domain<unpause>);
  add("shutdownRequest", on_domain<shutdown_request>);
  add("shutdownCancel", on_domain<shutdown_cancel>);
  add("resumeInPlace", on_domain<resume_in_place>);
  add("snapshot", on_domain<snapshot>);
  add("cowPages", on_domain<cow_pages>);
  add("releaseSnapshot", on_domain<release_snapshot>);
  add("logDirtyOn", on_domain<log_dirty_on>);
  add("logDirtyPeek", on_domain<log_dirty_read<false>>);
  add("logDirtyReadAndClear", on_domain<log_dirty_read<true>>);
  add("logDirtyOff", on_domain<log_dirty_off>);
  add("poke", on_domain<poke>);
  return ns;
}

}  // namespace dormouse::binding
