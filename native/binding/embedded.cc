// Namespace `embedded`: maps an embedded host's memory in a tool process and registers views of it.
#include <algorithm>
#include <string>
#include <vector>

#include "binding/object_util.h"
#include "binding/registry.h"
#include "host/embedded/as_xen.h"
#include "host/embedded/view.h"
#include "host/kept_memory.h"

namespace dormouse::binding {

namespace {

using embedded::EmbeddedMemory;
using embedded::MachineMap;
using embedded::ViewKind;

Napi::Value open_machine(const Napi::CallbackInfo& info) {
  DM_ASSERT(info.Length() == 1 && info[0].IsObject());
  const auto layout = info[0].As<Napi::Object>();
  const embedded::MachineFds fds{int(field(layout, "pid")),      field(layout, "frames"),
                                 int(field(layout, "memoryFd")), int(field(layout, "m2pFd")),
                                 int(field(layout, "statesFd")), int(field(layout, "touchedFd"))};
  auto map = std::make_shared<MachineMap>();
  Fault fault;
  if (!map->open(fds, &fault)) {
    throw_fault(info.Env(), fault);
    return info.Env().Undefined();
  }
  return num(info.Env(), Registry<MachineMap>::get().add(std::move(map)));
}

Napi::Value close_machine(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), Registry<MachineMap>::get().release(arg_u32(info, 0)));
}

ViewKind kind_of(const std::string& name) {
  if (name == "live") return ViewKind::live;
  if (name == "snapshot") return ViewKind::snapshot;
  DM_ASSERT(name == "build" || name == "rewrite");
  return name == "build" ? ViewKind::build : ViewKind::rewrite;
}

Napi::Value open_view(const Napi::CallbackInfo& info) {
  const auto machine = Registry<MachineMap>::get().find(arg_u32(info, 0));
  DM_ASSERT(machine && info[1].IsObject());
  const auto view = info[1].As<Napi::Object>();
  const auto domain = view.Get("domain").As<Napi::Object>();
  embedded::ViewOptions options;
  options.kind = kind_of(text_field(view, "kind"));
  options.epoch = field(view, "epoch");
  options.consume = view.Get("consume").ToBoolean().Value();
  options.nr_pfns = field(domain, "nrPfns");
  options.meta = int(field(domain, "metaFd"));
  options.meta_snap = int(field(domain, "metaSnapFd"));
  options.cow = int(field(domain, "cowFd"));
  Fault fault;
  std::shared_ptr<host::DomainMemory> memory = EmbeddedMemory::open(machine, options, &fault);
  if (!memory) {
    throw_fault(info.Env(), fault);
    return info.Env().Undefined();
  }
  return num(info.Env(), Registry<host::DomainMemory>::get().add(std::move(memory)));
}

// openAsXen(machine, { domain, translated, p2mPfns }) -> view: of a domain that runs, through what
// the xen host keeps of one
Napi::Value open_as_xen(const Napi::CallbackInfo& info) {
  const auto machine = Registry<MachineMap>::get().find(arg_u32(info, 0));
  DM_ASSERT(machine && info[1].IsObject());
  const auto view = info[1].As<Napi::Object>();
  const auto domain = view.Get("domain").As<Napi::Object>();
  const auto pfns = view.Get("p2mPfns").As<Napi::BigUint64Array>();
  embedded::AsXenOptions options;
  options.nr_pfns = field(domain, "nrPfns");
  options.meta = int(field(domain, "metaFd"));
  options.translated = view.Get("translated").ToBoolean().Value();
  options.p2m_pfns.assign(pfns.Data(), pfns.Data() + pfns.ElementLength());
  Fault fault;
  if (auto frames = embedded::AsXenFrames::open(machine, options, &fault)) {
    auto memory = std::make_shared<host::KeptMemory>(std::move(frames));
    if (memory->map_all(&fault))
      return num(info.Env(), Registry<host::DomainMemory>::get().add(std::move(memory)));
  }
  throw_fault(info.Env(), fault);
  return info.Env().Undefined();
}

std::shared_ptr<host::KeptMemory> kept(const Napi::CallbackInfo& info) {
  auto memory = std::dynamic_pointer_cast<host::KeptMemory>(
      Registry<host::DomainMemory>::get().find(arg_u32(info, 0)));
  DM_ASSERT(memory);
  return memory;
}

// refreshAsXen(view, logged)
Napi::Value refresh_as_xen(const Napi::CallbackInfo& info) {
  Fault fault;
  if (!kept(info)->refresh(info[1].As<Napi::Boolean>(), &fault)) throw_fault(info.Env(), fault);
  return info.Env().Undefined();
}

// catchUpAsXen(view, logged)
Napi::Value catch_up_as_xen(const Napi::CallbackInfo& info) {
  Fault fault;
  if (!kept(info)->catch_up(info[1].As<Napi::Boolean>(), &fault)) throw_fault(info.Env(), fault);
  return info.Env().Undefined();
}

Napi::Value close_view(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(),
                            Registry<host::DomainMemory>::get().release(arg_u32(info, 0)));
}

std::shared_ptr<host::DomainMemory> memory_of(const Napi::CallbackInfo& info) {
  auto memory = Registry<host::DomainMemory>::get().find(arg_u32(info, 0));
  DM_ASSERT(memory);
  return memory;
}

std::vector<uint64_t> pfn_list(const Napi::CallbackInfo& info, size_t i) {
  DM_ASSERT(info.Length() > i && info[i].IsArray());
  const auto array = info[i].As<Napi::Array>();
  DM_ASSERT(array.Length() <= 1024);
  std::vector<uint64_t> pfns(array.Length());
  for (uint32_t k = 0; k < array.Length(); k++)
    pfns[k] = uint64_t(array.Get(k).As<Napi::Number>().Int64Value());
  return pfns;
}

Napi::Value read_entries(const Napi::CallbackInfo& info) {
  const auto memory = memory_of(info);
  const uint64_t first = arg_u64(info, 1);
  const uint32_t count = arg_u32(info, 2);
  DM_ASSERT(count <= 1024);
  auto entries = Napi::Buffer<uint8_t>::New(info.Env(), count * 8);
  Fault fault;
  if (!memory->query(first, count, reinterpret_cast<uint64_t*>(entries.Data()), &fault))
    throw_fault(info.Env(), fault);
  return entries;
}

// Pages without a body are left zero.
bool read_listed(host::DomainMemory& memory, const std::vector<uint64_t>& pfns, uint8_t* out,
                 Fault* fault) {
  for (size_t i = 0; i < pfns.size(); i++) {
    uint64_t entry;
    if (!memory.query(pfns[i], 1, &entry, fault)) return false;
    if (!host::has_body(host::type_of(entry))) continue;
    if (!memory.copy_out(&pfns[i], &entry, 1, out + i * host::kPageSize, fault)) return false;
  }
  return true;
}

Napi::Value read_pages(const Napi::CallbackInfo& info) {
  const auto memory = memory_of(info);
  const auto pfns = pfn_list(info, 1);
  auto pages = Napi::Buffer<uint8_t>::New(info.Env(), pfns.size() * host::kPageSize);
  std::fill_n(pages.Data(), pages.Length(), uint8_t(0));
  Fault fault;
  if (!read_listed(*memory, pfns, pages.Data(), &fault)) throw_fault(info.Env(), fault);
  return pages;
}

Napi::Value write_pages(const Napi::CallbackInfo& info) {
  const auto memory = memory_of(info);
  const auto pfns = pfn_list(info, 1);
  DM_ASSERT(info[2].IsBuffer());
  const auto pages = info[2].As<Napi::Buffer<uint8_t>>();
  DM_ASSERT(pages.Length() == pfns.size() * host::kPageSize);
  Fault fault;
  if (!memory->copy_in(pfns.data(), uint32_t(pfns.size()), pages.Data(), &fault))
    throw_fault(info.Env(), fault);
  return info.Env().Undefined();
}

}  // namespace

Napi::Object init_embedded(Napi::Env env) {
  Napi::Object ns = Napi::Object::New(env);
  const auto add = [&](const char* name, Napi::Value (*call)(const Napi::CallbackInfo&)) {
    ns.Set(name, Napi::Function::New(env, call, name));
  };
  add("openMachine", open_machine);
  add("closeMachine", close_machine);
  add("openView", open_view);
  add("openAsXen", open_as_xen);
  add("refreshAsXen", refresh_as_xen);
  add("catchUpAsXen", catch_up_as_xen);
  add("closeView", close_view);
  add("readEntries", read_entries);
  add("readPages", read_pages);
  add("writePages", write_pages);
  return ns;
}

}  // namespace dormouse::binding
