// Namespace `hypervisor`: calls that look at, run and snapshot one domain.
#include <utility>
#include <vector>

#include "host/embedded/binding/hypervisor_calls.h"
#include "host/embedded/programs/programs.h"

namespace dormouse::binding {

namespace {

using embedded::Domain;
using embedded::DomainType;

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

// --- run state

Napi::Value pause(Domain& dom, Args info, Fault*) {
  dom.pause();
  return {};
}

Napi::Value unpause(Domain& dom, Args info, Fault* fault) {
  dom.unpause(fault);
  return {};
}

Napi::Value shutdown_request(Domain& dom, Args info, Fault*) {
  const std::string reason = arg_text(info, 2);
  dom.shutdown_request(reason == "suspend"  ? embedded::kSuspend
                       : reason == "reboot" ? embedded::kReboot
                                            : embedded::kPoweroff);
  return {};
}

Napi::Value shutdown_cancel(Domain& dom, Args info, Fault*) {
  return Napi::Boolean::New(info.Env(), dom.shutdown_cancel());
}

Napi::Value resume_in_place(Domain& dom, Args info, Fault* fault) {
  dom.resume_in_place(fault);
  return {};
}

// --- snapshots and dirty log

Napi::Value snapshot(Domain& dom, Args info, Fault* fault) {
  Napi::Env env = info.Env();
  embedded::SnapshotState state;
  if (!dom.snapshot(&state, fault)) return {};
  Napi::Array vcpus = Napi::Array::New(env, state.vcpus.size());
  for (uint32_t i = 0; i < state.vcpus.size(); i++)
    vcpus.Set(i, bytes(env, &state.vcpus[i], sizeof(embedded::VcpuContext)));
  Napi::Object out = Napi::Object::New(env);
  out.Set("epoch", num(env, state.epoch));
  out.Set("pauseNs", num(env, state.pause_ns));
  out.Set("geometry", geometry_object(env, state.geometry));
  out.Set("vcpus", vcpus);
  out.Set("sharedInfo", bytes(env, state.shared_info.get(), host::kPageSize));
  out.Set("dirty", state.dirty.empty()
                       ? env.Null()
                       : Napi::Value(bytes(env, state.dirty.data(), state.dirty.size())));
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
  return {};
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
  return {};
}

Napi::Value poke(Domain& dom, Args info, Fault* fault) {
  const uint64_t pfn = arg_u64(info, 2), index = arg_u64(info, 3);
  bool lossless;
  need(info[4].IsBigInt(), "argument 5 is no BigInt");
  const uint64_t entry = info[4].As<Napi::BigInt>().Uint64Value(&lossless);
  need(index < 512, "no entry of a page table");
  if (!dom.has_frame(pfn)) {
    fault->raise("DOMAIN_WRONG_STATE", "the page has no frame");
    return {};
  }
  std::lock_guard<std::mutex> lock(dom.mmu);
  dom.before_write(dom.mfn(pfn));
  __atomic_store_n(dom.machine.words(dom.mfn(pfn)) + index, entry, __ATOMIC_RELEASE);
  dom.tlb_generation++;
  return {};
}

// balloon(machine, domid, first, count, up)
Napi::Value balloon(Domain& dom, Args info, Fault* fault) {
  const embedded::PfnRun run{arg_u64(info, 2), arg_u64(info, 3)};
  if (arg_bool(info, 4))
    dom.populate({run}, fault);
  else
    dom.depopulate(run);
  return {};
}

// setUnlogged(machine, domid, { gained, lost, retyped, granted })
Napi::Value set_unlogged(Domain& dom, Args info, Fault*) {
  const auto what = arg_object(info, 2);
  auto bit = [&](const char* name, Domain::Change change) {
    return flag_field(what, name) ? change : 0;
  };
  dom.unlogged = uint8_t(bit("gained", Domain::kGained) | bit("lost", Domain::kLost) |
                         bit("retyped", Domain::kRetyped) | bit("granted", Domain::kGranted));
  return {};
}

}  // namespace

void add_domain_calls(Napi::Object ns) {
  add<on_domain<domain_info>>(ns, "domainInfo");
  add<on_domain<domain_layout>>(ns, "domainLayout");
  add<on_domain<geometry>>(ns, "geometry");
  add<on_domain<progress>>(ns, "progress");
  add<on_domain<pause>>(ns, "pause");
  add<on_domain<unpause>>(ns, "unpause");
  add<on_domain<shutdown_request>>(ns, "shutdownRequest");
  add<on_domain<shutdown_cancel>>(ns, "shutdownCancel");
  add<on_domain<resume_in_place>>(ns, "resumeInPlace");
  add<on_domain<snapshot>>(ns, "snapshot");
  add<on_domain<cow_pages>>(ns, "cowPages");
  add<on_domain<release_snapshot>>(ns, "releaseSnapshot");
  add<on_domain<log_dirty_on>>(ns, "logDirtyOn");
  add<on_domain<log_dirty_read<false>>>(ns, "logDirtyPeek");
  add<on_domain<log_dirty_read<true>>>(ns, "logDirtyReadAndClear");
  add<on_domain<log_dirty_off>>(ns, "logDirtyOff");
  add<on_domain<poke>>(ns, "poke");
  add<on_domain<balloon>>(ns, "balloon");
  add<on_domain<set_unlogged>>(ns, "setUnlogged");
}

}  // namespace dormouse::binding
