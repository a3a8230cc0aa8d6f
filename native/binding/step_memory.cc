// Pages of a domain's memory, a few at a time: as they are, and as they are placed.
#include "binding/entry.h"
#include "binding/external.h"
#include "binding/step.h"
#include "binding/task.h"
#include "host/host.h"
#include "step/receive_step.h"
#include "step/restore_step.h"

namespace dormouse::binding {
namespace {

// readPages(memory, pfns: BigUint64Array) -> Buffer; pages as they are, MFNs and all
Napi::Value read_pages(const Napi::CallbackInfo& info) {
  auto memory = held<host::DomainMemory>(info, 0);
  auto pfns = arg_words(info, 1);
  const size_t n = pfns.ElementLength();
  auto out = Napi::Buffer<uint8_t>::New(info.Env(), n * host::kPageSize);
  Fault fault;
  for (size_t i = 0; i < n; ++i) {
    const uint64_t pfn = pfns.Data()[i];
    uint64_t entry = 0;
    if (!memory->query(pfn, 1, &entry, &fault) ||
        !memory->copy_out(&pfn, &entry, 1, out.Data() + i * host::kPageSize, &fault))
      return failed(info.Env(), fault);
  }
  return out;
}

// queryPages(memory, firstPfn, count) -> BigUint64Array of frame | page type << 60
Napi::Value query_pages(const Napi::CallbackInfo& info) {
  auto memory = held<host::DomainMemory>(info, 0);
  const uint64_t first = arg_u64(info, 1);
  const uint32_t count = arg_u32(info, 2);
  need(count <= 1024, "more than 1024 pfns");
  auto out = Napi::BigUint64Array::New(info.Env(), count);
  Fault fault;
  if (!memory->query(first, count, out.Data(), &fault)) return failed(info.Env(), fault);
  return out;
}

// writePages(memory, pfns: BigUint64Array, pages: Buffer)
Napi::Value write_pages(const Napi::CallbackInfo& info) {
  auto memory = held<host::DomainMemory>(info, 0);
  auto pfns = arg_words(info, 1);
  auto pages = arg_bytes(info, 2);
  need(pages.ByteLength() == pfns.ElementLength() * host::kPageSize, "not a page for each pfn");
  Fault fault;
  for (size_t i = 0; i < pfns.ElementLength(); ++i)
    if (!memory->copy_in(pfns.Data() + i, 1, pages.Data() + i * host::kPageSize, &fault))
      return failed(info.Env(), fault);
  return info.Env().Undefined();
}

// writeP2mLeaves(memory, leafPfns: BigUint64Array)
Napi::Value write_p2m_leaves(const Napi::CallbackInfo& info) {
  auto memory = held<host::DomainMemory>(info, 0);
  auto leaves = arg_words(info, 1);
  Fault fault;
  if (!step::write_p2m_leaves(*memory, leaves.Data(), leaves.ElementLength(), &fault))
    return failed(info.Env(), fault);
  return info.Env().Undefined();
}

// admitPages(descs: BigUint64Array, types: Uint8Array, placing: Uint8Array, fresh: BigUint64Array
// out) -> {highestPfn, populate, overlaps}
Napi::Value admit_pages(const Napi::CallbackInfo& info) {
  auto descs = arg_words(info, 0);
  auto types = arg_bytes(info, 1), placing = arg_bytes(info, 2);
  auto populate = arg_words(info, 3);
  need(descs.ElementLength() > 0, "no pages");
  need(types.ByteLength() == placing.ByteLength(), "not two words for each pfn");
  need(populate.ElementLength() >= descs.ElementLength(), "no room for each page");
  const step::Admitted admitted =
      step::admit_pages(descs.Data(), uint32_t(descs.ElementLength()),
                        {types.Data(), placing.Data(), types.ByteLength()}, populate.Data());
  Napi::Object out = Napi::Object::New(info.Env());
  out.Set("highestPfn", num(info.Env(), admitted.highest_pfn));
  out.Set("populate", num(info.Env(), admitted.n_populate));
  out.Set("overlaps", Napi::Boolean::New(info.Env(), admitted.overlaps));
  return out;
}

// placePages(memory, descs: BigUint64Array, bodies: Buffer, placing: Uint8Array) -> Promise; their
// marks in `placing` are gone then
Napi::Value place_pages(const Napi::CallbackInfo& info) {
  auto descs = arg_words(info, 1);
  auto bodies = arg_bytes(info, 2), placing = arg_bytes(info, 3);
  const step::PageBodies pages = {descs.Data(), uint32_t(descs.ElementLength()), bodies.Data(),
                                  bodies.ByteLength() / host::kPageSize};
  return Task::start(info.Env(),
                     [pages, memory = held<host::DomainMemory>(info, 0), marks = placing.Data(),
                      n = placing.ByteLength()](Fault* fault) {
                       const bool good = step::place_pages(*memory, pages, fault);
                       step::unmark_pages(pages.descs, pages.n_pages, marks, n);
                       return good;
                     },
                     {descs, bodies, placing});
}

// localiseTables(memory, pfns: BigUint64Array, levels: Uint8Array)
Napi::Value localise_tables(const Napi::CallbackInfo& info) {
  auto memory = held<host::DomainMemory>(info, 0);
  auto pfns = arg_words(info, 1);
  auto levels = arg_bytes(info, 2);
  need(pfns.ElementLength() == levels.ElementLength(), "not a level for each pfn");
  for (size_t i = 0; i < levels.ElementLength(); ++i)
    need(levels.Data()[i] >= 1 && levels.Data()[i] <= 4, "no level of a page table");
  Fault fault;
  if (!step::localise_tables(*memory, pfns.Data(), levels.Data(), pfns.ElementLength(), &fault))
    return failed(info.Env(), fault);
  return info.Env().Undefined();
}

// framesToPfns(memory, mfns: BigUint64Array): in place; all ones where it is not the domain's
Napi::Value frames_to_pfns(const Napi::CallbackInfo& info) {
  auto memory = held<host::DomainMemory>(info, 0);
  auto list = arg_words(info, 1);
  const host::FrameMaps maps = memory->maps();
  for (size_t i = 0; i < list.ElementLength(); ++i) {
    const uint64_t mfn = list.Data()[i];
    const uint64_t pfn = mfn < maps.nr_mfns ? maps.m2p[mfn] : ~0ull;
    const bool own = pfn < maps.nr_pfns && (maps.p2m[pfn] & host::kMfnMask) == mfn;
    list.Data()[i] = own ? pfn : ~0ull;
  }
  return list;
}

// pfnsToFrames(memory, pfns: BigUint64Array): in place; all ones where there is no frame
Napi::Value pfns_to_frames(const Napi::CallbackInfo& info) {
  auto memory = held<host::DomainMemory>(info, 0);
  auto list = arg_words(info, 1);
  const host::FrameMaps maps = memory->maps();
  for (size_t i = 0; i < list.ElementLength(); ++i) {
    const uint64_t pfn = list.Data()[i];
    const uint64_t mfn = pfn < maps.nr_pfns ? maps.p2m[pfn] & host::kMfnMask : host::kNoMfn;
    list.Data()[i] = mfn == host::kNoMfn ? ~0ull : mfn;
  }
  return list;
}

// adoptMemory(external) -> memory: one that another addon opened, once; the External is empty then
Napi::Value adopt_memory(const Napi::CallbackInfo& info) {
  return give(info.Env(), take_over<host::DomainMemory>(info, 0));
}

}  // namespace

void add_memory_steps(Napi::Object out) {
  add<query_pages>(out, "queryPages");
  add<read_pages>(out, "readPages");
  add<write_pages>(out, "writePages");
  add<write_p2m_leaves>(out, "writeP2mLeaves");
  add<admit_pages>(out, "admitPages");
  add<place_pages>(out, "placePages");
  add<localise_tables>(out, "localiseTables");
  add<frames_to_pfns>(out, "framesToPfns");
  add<pfns_to_frames>(out, "pfnsToFrames");
  add<adopt_memory>(out, "adoptMemory");
  add<release<host::DomainMemory>>(out, "releaseMemory");
}

}  // namespace dormouse::binding
