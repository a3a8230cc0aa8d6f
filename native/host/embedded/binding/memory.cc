// Namespace `embedded`: maps an embedded host's memory in a tool process and registers views of it.
#include <algorithm>
#include <string>
#include <vector>

#include "binding/entry.h"
#include "binding/registry.h"
#include "host/embedded/as_xen.h"
#include "host/embedded/view.h"
#include "host/kept_memory.h"

namespace dormouse::binding {

namespace {

constexpr uint64_t kMostFrames = 1ull << 32;

using embedded::EmbeddedMemory;
using embedded::MachineMap;
using embedded::ViewKind;

Napi::Value open_machine(const Napi::CallbackInfo& info) {
  const auto layout = arg_object(info, 0);
  need(field(layout, "frames") < kMostFrames, "more frames than a machine may have");
  const embedded::MachineFds fds{int(field(layout, "pid")),      field(layout, "frames"),
                                 int(field(layout, "memoryFd")), int(field(layout, "m2pFd")),
                                 int(field(layout, "statesFd")), int(field(layout, "touchedFd"))};
  auto map = std::make_shared<MachineMap>();
  Fault fault;
  if (!map->open(fds, &fault)) return failed(info.Env(), fault);
  return give<MachineMap>(info.Env(), std::move(map));
}

ViewKind kind_of(const std::string& name) {
  if (name == "live") return ViewKind::live;
  if (name == "snapshot") return ViewKind::snapshot;
  need(name == "build" || name == "rewrite", "no kind of view");
  return name == "build" ? ViewKind::build : ViewKind::rewrite;
}

Napi::Value open_view(const Napi::CallbackInfo& info) {
  const auto machine = held<MachineMap>(info, 0);
  const auto view = arg_object(info, 1), domain = object_field(view, "domain");
  embedded::ViewOptions options;
  options.kind = kind_of(text_field(view, "kind"));
  options.epoch = field(view, "epoch");
  options.consume = flag_field(view, "consume");
  options.nr_pfns = field(domain, "nrPfns");
  need(options.nr_pfns >= 1 && options.nr_pfns <= kMostFrames, "no size of a pfn space");
  options.meta = int(field(domain, "metaFd"));
  options.meta_snap = int(field(domain, "metaSnapFd"));
  options.cow = int(field(domain, "cowFd"));
  Fault fault;
  std::shared_ptr<host::DomainMemory> memory = EmbeddedMemory::open(machine, options, &fault);
  if (!memory) return failed(info.Env(), fault);
  return give<host::DomainMemory>(info.Env(), std::move(memory));
}

// openAsXen(machine, { domain, translated, p2mPfns }) -> view: of a domain that runs, through what
// the xen host keeps of one
Napi::Value open_as_xen(const Napi::CallbackInfo& info) {
  const auto machine = held<MachineMap>(info, 0);
  const auto view = arg_object(info, 1), domain = object_field(view, "domain");
  const auto pfns = words_field(view, "p2mPfns");
  embedded::AsXenOptions options;
  options.nr_pfns = field(domain, "nrPfns");
  options.meta = int(field(domain, "metaFd"));
  need(options.nr_pfns >= 1 && options.nr_pfns <= kMostFrames, "no size of a pfn space");
  options.translated = flag_field(view, "translated");
  need(options.translated || pfns.ElementLength() >= (options.nr_pfns + 511) / 512,
       "fewer pages of the p2m than the pfn space needs");
  options.p2m_pfns.assign(pfns.Data(), pfns.Data() + pfns.ElementLength());
  Fault fault;
  if (auto frames = embedded::AsXenFrames::open(machine, options, &fault)) {
    auto memory = std::make_shared<host::KeptMemory>(std::move(frames));
    if (memory->map_all(&fault)) return give<host::DomainMemory>(info.Env(), std::move(memory));
  }
  return failed(info.Env(), fault);
}

std::shared_ptr<host::KeptMemory> kept(const Napi::CallbackInfo& info) {
  auto memory = std::dynamic_pointer_cast<host::KeptMemory>(held<host::DomainMemory>(info, 0));
  need(memory != nullptr, "the memory is not kept as the xen host keeps one");
  return memory;
}

// refreshAsXen(view, logged)
Napi::Value refresh_as_xen(const Napi::CallbackInfo& info) {
  Fault fault;
  if (!kept(info)->refresh(arg_bool(info, 1), &fault)) return failed(info.Env(), fault);
  return {};
}

// catchUpAsXen(view, logged)
Napi::Value catch_up_as_xen(const Napi::CallbackInfo& info) {
  Fault fault;
  if (!kept(info)->catch_up(arg_bool(info, 1), &fault)) return failed(info.Env(), fault);
  return {};
}

std::vector<uint64_t> pfn_list(const Napi::CallbackInfo& info, size_t i) {
  const auto array = arg_array(info, i);
  need(array.Length() <= 1024, "more than 1024 pfns");
  std::vector<uint64_t> pfns(array.Length());
  for (uint32_t k = 0; k < pfns.size(); k++) pfns[k] = number_at(array, k);
  return pfns;
}

Napi::Value read_entries(const Napi::CallbackInfo& info) {
  const auto memory = held<host::DomainMemory>(info, 0);
  const uint64_t first = arg_u64(info, 1);
  const uint32_t count = arg_u32(info, 2);
  need(count <= 1024, "more than 1024 pfns");
  auto entries = Napi::Buffer<uint8_t>::New(info.Env(), count * 8);
  Fault fault;
  if (!memory->query(first, count, reinterpret_cast<uint64_t*>(entries.Data()), &fault))
    return failed(info.Env(), fault);
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
  const auto memory = held<host::DomainMemory>(info, 0);
  const auto pfns = pfn_list(info, 1);
  auto pages = Napi::Buffer<uint8_t>::New(info.Env(), pfns.size() * host::kPageSize);
  std::fill_n(pages.Data(), pages.Length(), uint8_t(0));
  Fault fault;
  if (!read_listed(*memory, pfns, pages.Data(), &fault)) return failed(info.Env(), fault);
  return pages;
}

Napi::Value write_pages(const Napi::CallbackInfo& info) {
  const auto memory = held<host::DomainMemory>(info, 0);
  const auto pfns = pfn_list(info, 1);
  const auto pages = arg_bytes(info, 2);
  need(pages.ByteLength() == pfns.size() * host::kPageSize, "not a page for each pfn");
  Fault fault;
  if (!memory->copy_in(pfns.data(), uint32_t(pfns.size()), pages.Data(), &fault))
    return failed(info.Env(), fault);
  return {};
}

}  // namespace

Napi::Object init_embedded(Napi::Env env) {
  Napi::Object ns = Napi::Object::New(env);
  add<open_machine>(ns, "openMachine");
  add<release<MachineMap>>(ns, "closeMachine");
  add<open_view>(ns, "openView");
  add<open_as_xen>(ns, "openAsXen");
  add<refresh_as_xen>(ns, "refreshAsXen");
  add<catch_up_as_xen>(ns, "catchUpAsXen");
  add<release<host::DomainMemory>>(ns, "closeView");
  add<read_entries>(ns, "readEntries");
  add<read_pages>(ns, "readPages");
  add<write_pages>(ns, "writePages");
  return ns;
}

}  // namespace dormouse::binding
