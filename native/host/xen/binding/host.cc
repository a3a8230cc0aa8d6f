// The N-API surface of the xen host, an addon of its own: src/host/xen/native.ts types it.
#include <cerrno>

#include "binding/entry.h"
#include "binding/external.h"
#include "binding/registry.h"
#include "host/xen/binding/builder.h"
#include "host/xen/binding/machine.h"
#include "host/xen/binding/rewriter.h"
#include "host/xen/binding/standing.h"
#include "host/xen/control.h"
#include "host/xen/event_pages.h"
#include "host/xen/shared_pages.h"
#include "host/xen/xen_memory.h"

namespace dormouse::xen {
namespace {

using binding::add;
using binding::arg_bool;
using binding::arg_u32;
using binding::failed;
using binding::held;
using binding::num;
using binding::throw_fault;
using Memories = binding::Registry<XenMemory>;

std::shared_ptr<Handles> shared_handles;

const std::shared_ptr<Handles>& handles() {
  binding::need(shared_handles != nullptr, "open() comes first");
  return shared_handles;
}

// open(): once per process, before anything else
Napi::Value open(const Napi::CallbackInfo& info) {
  Fault fault;
  if (!shared_handles) shared_handles = Handles::open(&fault);
  return shared_handles ? info.Env().Undefined() : failed(info.Env(), fault);
}

// capabilities() -> XEN_SYSCTL_PHYSCAP_* bits
Napi::Value capabilities(const Napi::CallbackInfo& info) {
  xc_physinfo_t physical = {};
  if (xc_physinfo(handles()->xc(), &physical) == 0) return num(info.Env(), physical.capabilities);
  Fault fault;
  raise_errno(&fault, "physinfo", DOMID_XEN);
  return failed(info.Env(), fault);
}

Napi::Object describe(Napi::Env env, const xc_domaininfo_t& info) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("domid", num(env, info.domain));
  out.Set("handle", Napi::Buffer<uint8_t>::Copy(env, info.handle, sizeof info.handle));
  out.Set("flags", num(env, info.flags));
  out.Set("emulation", num(env, info.arch_config.emulation_flags));
  out.Set("pages", num(env, info.tot_pages));
  out.Set("outstandingPages", num(env, info.outstanding_pages));
  out.Set("maxPages", num(env, info.max_pages));
  out.Set("vcpus", num(env, info.nr_online_vcpus));
  out.Set("cpuTimeNs", num(env, info.cpu_time));
  return out;
}

// domains() -> every domain of the machine, by id
Napi::Value domains(const Napi::CallbackInfo& info) {
  Napi::Array out = Napi::Array::New(info.Env());
  std::vector<xc_domaininfo_t> batch(64);
  uint32_t first = 0;
  for (;;) {
    const int got =
        xc_domain_getinfolist(handles()->xc(), first, unsigned(batch.size()), batch.data());
    if (got < 0) {
      Fault fault;
      raise_errno(&fault, "getdomaininfolist", first);
      return failed(info.Env(), fault);
    }
    for (int i = 0; i < got; ++i) out.Set(out.Length(), describe(info.Env(), batch[i]));
    if (got < int(batch.size())) return out;
    first = batch[got - 1].domain + 1;
  }
}

// domain(domid)
Napi::Value domain(const Napi::CallbackInfo& info) {
  Fault fault;
  xc_domaininfo_t found;
  if (!domain_info(*handles(), arg_u32(info, 0), &found, &fault)) return failed(info.Env(), fault);
  return describe(info.Env(), found);
}

// hasVnuma(domid): whether it was given virtual NUMA nodes, be they none
Napi::Value has_vnuma(const Napi::CallbackInfo& info) {
  const uint32_t domid = arg_u32(info, 0);
  uint32_t nodes = 0, ranges = 0, vcpus = 0;
  auto* const xc = handles()->xc();
  Fault fault;
  if (xc_domain_getvnuma(xc, domid, &nodes, &ranges, &vcpus, nullptr, nullptr, nullptr) != 0 &&
      errno != ENOBUFS) {
    if (errno == EOPNOTSUPP) return Napi::Boolean::New(info.Env(), false);
    raise_errno(&fault, "reading the virtual NUMA nodes", domid);
    return failed(info.Env(), fault);
  }
  return Napi::Boolean::New(info.Env(), true);
}

using DomainCall = bool (*)(const Handles&, uint32_t, Fault*);

bool pause_domain(const Handles& xen, uint32_t domid, Fault* fault) {
  return xc_domain_pause(xen.xc(), domid) == 0 || raise_errno(fault, "pause", domid);
}

bool unpause_domain(const Handles& xen, uint32_t domid, Fault* fault) {
  return xc_domain_unpause(xen.xc(), domid) == 0 || raise_errno(fault, "unpause", domid);
}

// f(domid), for calls that answer nothing
template <DomainCall call>
Napi::Value on_domain(const Napi::CallbackInfo& info) {
  Fault fault;
  if (!call(*handles(), arg_u32(info, 0), &fault)) return failed(info.Env(), fault);
  return info.Env().Undefined();
}

// logDirtyOff(domid) -> whether it was on
Napi::Value end_log_dirty(const Napi::CallbackInfo& info) {
  Fault fault;
  bool was_on = false;
  if (!log_dirty_off(*handles(), arg_u32(info, 0), &was_on, &fault))
    return failed(info.Env(), fault);
  return Napi::Boolean::New(info.Env(), was_on);
}

// logDirtyRead(domid, nrPfns, clean, final) -> bitmap
Napi::Value log_dirty_bitmap(const Napi::CallbackInfo& info) {
  Fault fault;
  std::vector<uint8_t> bitmap;
  if (!log_dirty_read(*handles(), arg_u32(info, 0), binding::arg_u64(info, 1),
                      {arg_bool(info, 2), arg_bool(info, 3)}, &bitmap, &fault))
    return failed(info.Env(), fault);
  return Napi::Buffer<uint8_t>::Copy(info.Env(), bitmap.data(), bitmap.size());
}

// markSharedPages(domid, nrPfns, bitmap)
Napi::Value mark_shared(const Napi::CallbackInfo& info) {
  Fault fault;
  auto bitmap = binding::arg_bytes(info, 2);
  const uint64_t nr_pfns = binding::arg_u64(info, 1);
  binding::need(bitmap.ByteLength() >= (nr_pfns + 7) / 8, "a bitmap of fewer pfns");
  if (!SharedPages(handles(), arg_u32(info, 0)).mark(bitmap.Data(), nr_pfns, &fault))
    return failed(info.Env(), fault);
  return info.Env().Undefined();
}

// Looks through a domain's memory in a thread of the pool.
class FindEventPages : public Napi::AsyncWorker {
 public:
  FindEventPages(Napi::Env env, std::shared_ptr<XenMemory> memory)
      : Napi::AsyncWorker(env),
        deferred_(Napi::Promise::Deferred::New(env)),
        memory_(std::move(memory)) {}
  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    guarded(&fault_, [this] { return find_event_pages(*memory_, &pfns_, &fault_); });
  }
  void OnOK() override {
    Napi::HandleScope scope(Env());
    if (fault_) {
      throw_fault(Env(), fault_);
      return deferred_.Reject(Env().GetAndClearPendingException().Value());
    }
    Napi::Array out = Napi::Array::New(Env());
    for (const uint64_t pfn : pfns_) out.Set(out.Length(), num(Env(), pfn));
    deferred_.Resolve(out);
  }

 private:
  Napi::Promise::Deferred deferred_;
  std::shared_ptr<XenMemory> memory_;
  std::vector<uint64_t> pfns_;
  Fault fault_;
};

// eventPages(memory) -> Promise<pfns>
Napi::Value event_pages(const Napi::CallbackInfo& info) {
  auto* worker = new FindEventPages(info.Env(), held<XenMemory>(info, 0));
  Napi::Promise promise = worker->promise();
  worker->Queue();
  return promise;
}

// Maps a domain's memory in a thread of the pool; resolves to the number of the memory.
class OpenMemory : public Napi::AsyncWorker {
 public:
  OpenMemory(Napi::Env env, uint32_t domid, std::shared_ptr<XenMemory> refreshed, bool logged)
      : Napi::AsyncWorker(env),
        deferred_(Napi::Promise::Deferred::New(env)),
        domid_(domid),
        xen_(handles()),
        memory_(std::move(refreshed)),
        logged_(logged) {}
  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    refreshing_ = memory_ != nullptr;
    guarded(&fault_, [this] {
      if (refreshing_) return memory_->refresh(logged_, &fault_);
      memory_ = XenMemory::open(xen_, domid_, &fault_);
      return memory_ != nullptr;
    });
  }
  void OnOK() override {
    Napi::HandleScope scope(Env());
    if (fault_) {
      throw_fault(Env(), fault_);
      deferred_.Reject(Env().GetAndClearPendingException().Value());
    } else if (refreshing_) {
      deferred_.Resolve(Env().Undefined());
    } else {
      deferred_.Resolve(binding::give<XenMemory>(Env(), std::move(memory_)));
    }
  }

 private:
  Napi::Promise::Deferred deferred_;
  uint32_t domid_;
  std::shared_ptr<Handles> xen_;
  std::shared_ptr<XenMemory> memory_;
  bool logged_;
  bool refreshing_ = false;
  Fault fault_;
};

Napi::Value start(OpenMemory* worker) {
  Napi::Promise promise = worker->promise();
  worker->Queue();
  return promise;
}

// openMemory(domid) -> Promise<memory>
Napi::Value open_memory(const Napi::CallbackInfo& info) {
  return start(new OpenMemory(info.Env(), arg_u32(info, 0), nullptr, false));
}

// refreshMemory(memory, logged) -> Promise<void>
Napi::Value refresh_memory(const Napi::CallbackInfo& info) {
  return start(new OpenMemory(info.Env(), 0, held<XenMemory>(info, 0), arg_bool(info, 1)));
}

// catchUpMemory(memory, logged): of a guest that stands still
Napi::Value catch_up_memory(const Napi::CallbackInfo& info) {
  Fault fault;
  if (!held<XenMemory>(info, 0)->catch_up(arg_bool(info, 1), &fault))
    return failed(info.Env(), fault);
  return info.Env().Undefined();
}

// exportMemory(memory) -> External for the main addon's adoptMemory
Napi::Value export_memory(const Napi::CallbackInfo& info) {
  return binding::hand_over<host::DomainMemory>(info.Env(), held<XenMemory>(info, 0));
}

// openMemories() -> how many are registered
Napi::Value open_memories(const Napi::CallbackInfo& info) {
  return num(info.Env(), Memories::get().count());
}

Napi::Value describe_geometry(Napi::Env env, uint64_t nr_pfns, const GuestP2m* p2m) {
  Napi::Object out = Napi::Object::New(env);
  Napi::Array frames = Napi::Array::New(env);
  if (p2m) {
    std::vector<uint64_t> pfns;
    Fault fault;
    if (!p2m->leaf_pfns(&pfns, &fault)) return failed(env, fault);
    for (uint32_t i = 0; i < pfns.size(); ++i) frames.Set(i, num(env, pfns[i]));
  }
  out.Set("nrPfns", num(env, nr_pfns));
  out.Set("guestWidth", num(env, p2m ? 8 : 0));
  out.Set("p2mFrames", frames);
  out.Set("p2mGeneration", num(env, p2m ? p2m->generation() & ((1ull << 53) - 1) : 0));
  return out;
}

// geometryOf(memory), of what is mapped
Napi::Value geometry_of(const Napi::CallbackInfo& info) {
  auto memory = held<XenMemory>(info, 0);
  return describe_geometry(info.Env(), memory->nr_pfns(), memory->p2m());
}

// geometry(domid), of the domain as it is now
Napi::Value geometry(const Napi::CallbackInfo& info) {
  Fault fault;
  xc_domaininfo_t found;
  const uint32_t domid = arg_u32(info, 0);
  if (!domain_info(*handles(), domid, &found, &fault)) return failed(info.Env(), fault);
  if (!is_hvm(found)) {
    const auto p2m = GuestP2m::open(handles(), found, &fault);
    return p2m ? describe_geometry(info.Env(), p2m->nr_pfns(), p2m.get())
               : failed(info.Env(), fault);
  }
  xen_pfn_t pfns = 0;
  if (xc_domain_nr_gpfns(handles()->xc(), domid, &pfns) == 0)
    return describe_geometry(info.Env(), pfns, nullptr);
  raise_errno(&fault, "maximum_gpfn", domid);
  return failed(info.Env(), fault);
}

}  // namespace

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("domctlVersion", num(env, XEN_DOMCTL_INTERFACE_VERSION));
  exports.Set("mostEventPages", num(env, kEventPagesCap));
  add<open>(exports, "open");
  add<capabilities>(exports, "capabilities");
  add<domains>(exports, "domains");
  add<domain>(exports, "domain");
  add<has_vnuma>(exports, "hasVnuma");
  add<on_domain<pause_domain>>(exports, "pause");
  add<on_domain<unpause_domain>>(exports, "unpause");
  add<on_domain<resume_in_place>>(exports, "resumeInPlace");
  add<on_domain<log_dirty_on>>(exports, "logDirtyOn");
  add<end_log_dirty>(exports, "logDirtyOff");
  add<log_dirty_bitmap>(exports, "logDirtyRead");
  add<mark_shared>(exports, "markSharedPages");
  add<event_pages>(exports, "eventPages");
  add<open_memory>(exports, "openMemory");
  add<refresh_memory>(exports, "refreshMemory");
  add<catch_up_memory>(exports, "catchUpMemory");
  add<export_memory>(exports, "exportMemory");
  add<binding::release<XenMemory>>(exports, "closeMemory");
  add<open_memories>(exports, "openMemories");
  add<geometry_of>(exports, "geometryOf");
  add<geometry>(exports, "geometry");
  add_builder(env, exports, handles);
  add_machine(env, exports, handles);
  add_rewriter(exports, handles);
  add_standing(exports, handles);
  return exports;
}

}  // namespace dormouse::xen

static Napi::Object init(Napi::Env env, Napi::Object exports) {
  return dormouse::xen::init(env, exports);
}
NODE_API_MODULE(dormouse_xen, init)
