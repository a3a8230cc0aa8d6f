// Bounded native steps: each call works on at most a few MiB and may run in any thread.
#include <cstring>

#include "binding/napi_util.h"
#include "binding/object_util.h"
#include "binding/registry.h"
#include "host/host.h"
#include "host/memory_tag.h"
#include "image/reader.h"
#include "image/writer.h"
#include "step/content_tracker.h"
#include "step/digest_step.h"
#include "step/live_pass.h"
#include "step/pieces.h"
#include "step/restore_step.h"
#include "step/save_step.h"

namespace dormouse::binding {
namespace {

using Memories = Registry<host::DomainMemory>;
using Writers = Registry<image::Writer>;
using Readers = Registry<image::Reader>;
using Digests = Registry<step::DigestTable>;
using Trackers = Registry<step::ContentTracker>;
using LivePasses = Registry<step::LivePass>;

template <typename T>
std::shared_ptr<T> held(const Napi::CallbackInfo& info, size_t i) {
  std::shared_ptr<T> object = Registry<T>::get().find(arg_u32(info, i));
  DM_ASSERT(object);
  return object;
}

Napi::Value failed(Napi::Env env, const Fault& fault) {
  throw_fault(env, fault);
  return env.Undefined();
}

Napi::Value by_class(Napi::Env env, const uint64_t counts[16]) {
  Napi::Array out = Napi::Array::New(env, 16);
  for (uint32_t i = 0; i < 16; ++i) out.Set(i, num(env, counts[i]));
  return out;
}

// saveStep(memory, writer, lane, firstPfn, count) -> pages put, by class (array of 16)
Napi::Value save_step(const Napi::CallbackInfo& info) {
  auto memory = held<host::DomainMemory>(info, 0);
  auto writer = held<image::Writer>(info, 1);
  uint64_t counts[16] = {};
  Fault fault;
  if (!step::save_step(*memory, *writer, arg_u32(info, 2), arg_u64(info, 3), arg_u64(info, 4),
                       counts, &fault))
    return failed(info.Env(), fault);
  return by_class(info.Env(), counts);
}

// restoreStep(memory, reader, lane, firstChunk, count) -> pages placed
Napi::Value restore_step(const Napi::CallbackInfo& info) {
  auto memory = held<host::DomainMemory>(info, 0);
  auto reader = held<image::Reader>(info, 1);
  uint64_t placed = 0;
  Fault fault;
  if (!step::restore_step(*memory, *reader, arg_u32(info, 2), arg_u32(info, 3), arg_u32(info, 4),
                          &placed, &fault))
    return failed(info.Env(), fault);
  return num(info.Env(), placed);
}

// hashStep(reader, lane, firstChunk, count)
Napi::Value hash_step(const Napi::CallbackInfo& info) {
  auto reader = held<image::Reader>(info, 0);
  const uint32_t lane = arg_u32(info, 1), first = arg_u32(info, 2);
  const uint64_t end = uint64_t(first) + arg_u32(info, 3);
  DM_ASSERT(lane < reader->lanes() && end <= reader->nr_chunks());
  Fault fault;
  for (uint32_t i = first; i < end; ++i)
    if (!reader->hash_chunk(lane, i, &fault)) return failed(info.Env(), fault);
  return info.Env().Undefined();
}

Napi::Value digest_create(const Napi::CallbackInfo& info) {
  auto table = std::make_shared<step::DigestTable>(arg_u64(info, 0));
  return Napi::Number::New(info.Env(), Digests::get().add(std::move(table)));
}

// digestDomainStep(memory, digest, firstPfn, count)
Napi::Value digest_domain_step(const Napi::CallbackInfo& info) {
  auto memory = held<host::DomainMemory>(info, 0);
  auto table = held<step::DigestTable>(info, 1);
  const uint64_t first = arg_u64(info, 2), count = arg_u64(info, 3);
  DM_ASSERT(first + count <= table->nr_pfns());
  Fault fault;
  if (!step::digest_domain_step(*memory, *table, first, count, &fault))
    return failed(info.Env(), fault);
  return info.Env().Undefined();
}

// digestImageStep(reader, digest, lane, firstChunk, count)
Napi::Value digest_image_step(const Napi::CallbackInfo& info) {
  auto reader = held<image::Reader>(info, 0);
  auto table = held<step::DigestTable>(info, 1);
  Fault fault;
  if (!step::digest_image_step(*reader, *table, arg_u32(info, 2), arg_u32(info, 3),
                               arg_u32(info, 4), &fault))
    return failed(info.Env(), fault);
  return info.Env().Undefined();
}

// digestSetPage(digest, pfn, type, page): replaces the content of one page
Napi::Value digest_set_page(const Napi::CallbackInfo& info) {
  auto table = held<step::DigestTable>(info, 0);
  const uint64_t pfn = arg_u64(info, 1);
  auto page = info[3].As<Napi::Buffer<uint8_t>>();
  DM_ASSERT(pfn < table->nr_pfns() && page.Length() == host::kPageSize);
  table->set(pfn, uint8_t(arg_u32(info, 2)), page.Data());
  return info.Env().Undefined();
}

Napi::Value digest_blank(const Napi::CallbackInfo& info) {
  auto table = held<step::DigestTable>(info, 0);
  const uint64_t pfn = arg_u64(info, 1);
  DM_ASSERT(pfn < table->nr_pfns());
  table->blank(pfn);
  return info.Env().Undefined();
}

// digestFinish(digest) -> 32 hex digits; releases the table
Napi::Value digest_finish(const Napi::CallbackInfo& info) {
  auto table = held<step::DigestTable>(info, 0);
  Digests::get().release(arg_u32(info, 0));
  const pfn::Hash128 hash = table->finish();
  char text[33];
  std::snprintf(text, sizeof text, "%016llx%016llx", static_cast<unsigned long long>(hash.high),
                static_cast<unsigned long long>(hash.low));
  return Napi::String::New(info.Env(), text);
}

Napi::Value digest_release(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), Digests::get().release(arg_u32(info, 0)));
}

// readPages(memory, pfns: BigUint64Array) -> Buffer; pages as they are, MFNs and all
Napi::Value read_pages(const Napi::CallbackInfo& info) {
  auto memory = held<host::DomainMemory>(info, 0);
  auto pfns = info[1].As<Napi::BigUint64Array>();
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
  DM_ASSERT(count <= 1024);
  auto out = Napi::BigUint64Array::New(info.Env(), count);
  Fault fault;
  if (!memory->query(first, count, out.Data(), &fault)) return failed(info.Env(), fault);
  return out;
}

// writePages(memory, pfns: BigUint64Array, pages: Buffer)
Napi::Value write_pages(const Napi::CallbackInfo& info) {
  auto memory = held<host::DomainMemory>(info, 0);
  auto pfns = info[1].As<Napi::BigUint64Array>();
  auto pages = info[2].As<Napi::Buffer<uint8_t>>();
  DM_ASSERT(pages.Length() == pfns.ElementLength() * host::kPageSize);
  Fault fault;
  for (size_t i = 0; i < pfns.ElementLength(); ++i)
    if (!memory->copy_in(pfns.Data() + i, 1, pages.Data() + i * host::kPageSize, &fault))
      return failed(info.Env(), fault);
  return info.Env().Undefined();
}

// writeP2mLeaves(memory, leafPfns: BigUint64Array)
Napi::Value write_p2m_leaves(const Napi::CallbackInfo& info) {
  auto memory = held<host::DomainMemory>(info, 0);
  auto leaves = info[1].As<Napi::BigUint64Array>();
  Fault fault;
  if (!step::write_p2m_leaves(*memory, leaves.Data(), leaves.ElementLength(), &fault))
    return failed(info.Env(), fault);
  return info.Env().Undefined();
}

// placePages(memory, descs: BigUint64Array, bodies: Buffer) -> pages written
Napi::Value place_pages(const Napi::CallbackInfo& info) {
  auto memory = held<host::DomainMemory>(info, 0);
  auto descs = info[1].As<Napi::BigUint64Array>();
  auto bodies = info[2].As<Napi::Buffer<uint8_t>>();
  uint64_t placed = 0;
  Fault fault;
  const step::PageBodies pages = {descs.Data(), uint32_t(descs.ElementLength()), bodies.Data(),
                                  bodies.Length() / host::kPageSize};
  if (!step::place_pages(*memory, pages, &placed, &fault)) return failed(info.Env(), fault);
  return num(info.Env(), placed);
}

// localiseTables(memory, pfns: BigUint64Array, levels: Uint8Array)
Napi::Value localise_tables(const Napi::CallbackInfo& info) {
  auto memory = held<host::DomainMemory>(info, 0);
  auto pfns = info[1].As<Napi::BigUint64Array>();
  auto levels = info[2].As<Napi::Uint8Array>();
  DM_ASSERT(pfns.ElementLength() == levels.ElementLength());
  Fault fault;
  if (!step::localise_tables(*memory, pfns.Data(), levels.Data(), pfns.ElementLength(), &fault))
    return failed(info.Env(), fault);
  return info.Env().Undefined();
}

// framesToPfns(memory, mfns: BigUint64Array): in place; all ones where it is not the domain's
Napi::Value frames_to_pfns(const Napi::CallbackInfo& info) {
  auto memory = held<host::DomainMemory>(info, 0);
  auto list = info[1].As<Napi::BigUint64Array>();
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
  auto list = info[1].As<Napi::BigUint64Array>();
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
  using Held = std::shared_ptr<host::DomainMemory>;
  auto external = info[0].As<Napi::External<Held>>();
  DM_ASSERT(info[0].IsExternal() && external.CheckTypeTag(&kMemoryTag));
  return num(info.Env(), Memories::get().add(std::move(*external.Data())));
}

// releaseMemory(memory) -> whether it was registered
Napi::Value release_memory(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), Memories::get().release(arg_u32(info, 0)));
}

// trackerCreate(nrPfns) -> tracker
Napi::Value tracker_create(const Napi::CallbackInfo& info) {
  auto tracker = std::make_shared<step::ContentTracker>(arg_u64(info, 0));
  return num(info.Env(), Trackers::get().add(std::move(tracker)));
}

// trackerRecord(tracker, memory, firstPfn, count)
Napi::Value tracker_record(const Napi::CallbackInfo& info) {
  auto tracker = held<step::ContentTracker>(info, 0);
  auto memory = held<host::DomainMemory>(info, 1);
  const uint64_t first = arg_u64(info, 2), count = arg_u64(info, 3);
  DM_ASSERT(first + count <= tracker->nr_pfns());
  Fault fault;
  if (!tracker->record_range(*memory, first, count, &fault)) return failed(info.Env(), fault);
  return info.Env().Undefined();
}

// trackerChanged(tracker, memory, threads) -> bitmap, one bit a pfn
Napi::Value tracker_changed(const Napi::CallbackInfo& info) {
  auto tracker = held<step::ContentTracker>(info, 0);
  auto memory = held<host::DomainMemory>(info, 1);
  auto bitmap = Napi::Buffer<uint8_t>::New(info.Env(), (tracker->nr_pfns() + 7) / 8);
  uint64_t changed = 0;
  Fault fault;
  if (!tracker->changed_in_all(*memory, arg_u32(info, 2), bitmap.Data(), &changed, &fault))
    return failed(info.Env(), fault);
  return bitmap;
}

// trackerRelease(tracker) -> whether it was registered
Napi::Value tracker_release(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), Trackers::get().release(arg_u32(info, 0)));
}

// liveCreate(nrPfns, byContent, maxCopiedPages) -> live
Napi::Value live_create(const Napi::CallbackInfo& info) {
  auto live = std::make_shared<step::LivePass>(arg_u64(info, 0), info[1].As<Napi::Boolean>());
  Fault fault;
  if (!live->allocate(arg_u64(info, 2), &fault)) return failed(info.Env(), fault);
  return num(info.Env(), LivePasses::get().add(std::move(live)));
}

// liveStep(live, memory, writer, lane, kind, firstPfn, count) -> pages put, by class
Napi::Value live_step(const Napi::CallbackInfo& info) {
  auto live = held<step::LivePass>(info, 0);
  auto memory = held<host::DomainMemory>(info, 1);
  auto writer = held<image::Writer>(info, 2);
  const uint32_t kind = arg_u32(info, 4);
  const uint64_t first = arg_u64(info, 5), count = arg_u64(info, 6);
  DM_ASSERT(first + count <= live->pending().nr_pfns() && first % 64 == 0);
  DM_ASSERT(kind != uint32_t(step::PassKind::seek) || live->by_content());
  uint64_t counts[16] = {};
  Fault fault;
  if (!live->step(*memory, *writer, arg_u32(info, 3), step::PassKind(kind), first, count, counts,
                  &fault))
    return failed(info.Env(), fault);
  return by_class(info.Env(), counts);
}

// liveMerge(live, memory, bitmap): adds the pages of a dirty log, one bit a pfn. Bits of pages
// whose frame changed by it are set too.
Napi::Value live_merge(const Napi::CallbackInfo& info) {
  auto live = held<step::LivePass>(info, 0);
  auto memory = held<host::DomainMemory>(info, 1);
  auto bitmap = info[2].As<Napi::Buffer<uint8_t>>();
  DM_ASSERT(bitmap.Length() >= (live->pending().nr_pfns() + 7) / 8);
  Fault fault;
  if (!live->merge_log(*memory, bitmap.Data(), &fault)) return failed(info.Env(), fault);
  return info.Env().Undefined();
}

// liveFindRetyped(live, memory)
Napi::Value live_find_retyped(const Napi::CallbackInfo& info) {
  auto live = held<step::LivePass>(info, 0);
  auto memory = held<host::DomainMemory>(info, 1);
  DM_ASSERT(!live->by_content());
  Fault fault;
  if (!live->find_retyped(*memory, &fault)) return failed(info.Env(), fault);
  return info.Env().Undefined();
}

// livePending(live) -> pages in the set
Napi::Value live_pending(const Napi::CallbackInfo& info) {
  return num(info.Env(), held<step::LivePass>(info, 0)->pending().count());
}

// liveBeginEpoch(live, whole)
Napi::Value live_begin_epoch(const Napi::CallbackInfo& info) {
  held<step::LivePass>(info, 0)->begin_epoch(info[1].As<Napi::Boolean>());
  return info.Env().Undefined();
}

// liveEndEpoch(live, committed)
Napi::Value live_end_epoch(const Napi::CallbackInfo& info) {
  auto live = held<step::LivePass>(info, 0);
  if (info[1].As<Napi::Boolean>())
    live->commit_epoch();
  else
    live->abort_epoch();
  return info.Env().Undefined();
}

// liveCopied(live) -> pages held of the last capture; -1 if it did not copy
Napi::Value live_copied(const Napi::CallbackInfo& info) {
  auto live = held<step::LivePass>(info, 0);
  return Napi::Number::New(info.Env(), live->copied() ? double(live->copy().size()) : -1);
}

// Reads { thorough, anywhere, maxPages, threads }.
step::CaptureHow capture_how(const Napi::Object& request) {
  step::CaptureHow how;
  how.thorough = request.Get("thorough").ToBoolean();
  how.anywhere = request.Get("anywhere").ToBoolean();
  how.max_pages = field(request, "maxPages");
  how.threads = unsigned(field(request, "threads"));
  return how;
}

// liveCapture(live, memory, { logged, thorough, anywhere, maxPages, threads }) -> whether copied
Napi::Value live_capture(const Napi::CallbackInfo& info) {
  auto live = held<step::LivePass>(info, 0);
  auto memory = held<host::DomainMemory>(info, 1);
  const auto request = info[2].As<Napi::Object>();
  const Napi::Value logged = request.Get("logged");
  DM_ASSERT(logged.IsBuffer() != live->by_content());
  const step::CaptureHow how = capture_how(request);
  Fault fault;
  if (logged.IsBuffer()) {
    auto bitmap = logged.As<Napi::Buffer<uint8_t>>();
    DM_ASSERT(bitmap.Length() >= (live->pending().nr_pfns() + 7) / 8);
    if (!live->merge_log(*memory, bitmap.Data(), &fault)) return failed(info.Env(), fault);
  }
  if (!live->capture(*memory, how, &fault)) return failed(info.Env(), fault);
  return Napi::Boolean::New(info.Env(), live->copied());
}

Napi::Value describe(Napi::Env env, const std::vector<step::Piece>& pieces) {
  Napi::Array out = Napi::Array::New(env, pieces.size());
  for (uint32_t i = 0; i < pieces.size(); ++i) {
    Napi::Array piece = Napi::Array::New(env, 2);
    piece.Set(0u, num(env, pieces[i].first));
    piece.Set(1u, num(env, pieces[i].count));
    out.Set(i, piece);
  }
  return out;
}

// memoryPieces(memory, nrPfns, pages) -> [first, count][]
Napi::Value memory_pieces(const Napi::CallbackInfo& info) {
  auto memory = held<host::DomainMemory>(info, 0);
  return describe(info.Env(),
                  step::cut_pieces(*memory, arg_u64(info, 1), arg_u64(info, 2), nullptr));
}

// livePieces(live, memory, pages) -> [first, count][]
Napi::Value live_pieces(const Napi::CallbackInfo& info) {
  auto live = held<step::LivePass>(info, 0);
  auto memory = held<host::DomainMemory>(info, 1);
  const step::PendingSet& pending = live->pending();
  return describe(info.Env(),
                  step::cut_pieces(*memory, pending.nr_pfns(), arg_u64(info, 2), &pending));
}

// livePut(live, writer, lane, first, count) -> pages put, by class
Napi::Value live_put(const Napi::CallbackInfo& info) {
  auto live = held<step::LivePass>(info, 0);
  auto writer = held<image::Writer>(info, 1);
  uint64_t counts[16] = {};
  Fault fault;
  if (!live->put(*writer, arg_u32(info, 2), arg_u64(info, 3), arg_u64(info, 4), counts, &fault))
    return failed(info.Env(), fault);
  return by_class(info.Env(), counts);
}

// liveRelease(live) -> whether it was registered
Napi::Value live_release(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), LivePasses::get().release(arg_u32(info, 0)));
}

// openObjects() -> how many memories, writers, readers, digests, trackers and live passes are
// registered (leak tests)
Napi::Value open_objects(const Napi::CallbackInfo& info) {
  Napi::Object out = Napi::Object::New(info.Env());
  out.Set("memories", num(info.Env(), Memories::get().count()));
  out.Set("writers", num(info.Env(), Writers::get().count()));
  out.Set("readers", num(info.Env(), Readers::get().count()));
  out.Set("digests", num(info.Env(), Digests::get().count()));
  out.Set("trackers", num(info.Env(), Trackers::get().count()));
  out.Set("livePasses", num(info.Env(), LivePasses::get().count()));
  return out;
}

}  // namespace

Napi::Object init_step(Napi::Env env) {
  Napi::Object out = Napi::Object::New(env);
  auto add = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    out.Set(name, Napi::Function::New(env, function, name));
  };
  add("saveStep", save_step);
  add("restoreStep", restore_step);
  add("hashStep", hash_step);
  add("digestCreate", digest_create);
  add("digestDomainStep", digest_domain_step);
  add("digestImageStep", digest_image_step);
  add("digestSetPage", digest_set_page);
  add("digestBlank", digest_blank);
  add("digestFinish", digest_finish);
  add("digestRelease", digest_release);
  add("queryPages", query_pages);
  add("readPages", read_pages);
  add("writePages", write_pages);
  add("writeP2mLeaves", write_p2m_leaves);
  add("placePages", place_pages);
  add("localiseTables", localise_tables);
  add("framesToPfns", frames_to_pfns);
  add("pfnsToFrames", pfns_to_frames);
  add("adoptMemory", adopt_memory);
  add("releaseMemory", release_memory);
  add("trackerCreate", tracker_create);
  add("trackerRecord", tracker_record);
  add("trackerChanged", tracker_changed);
  add("trackerRelease", tracker_release);
  add("liveCreate", live_create);
  add("liveStep", live_step);
  add("liveMerge", live_merge);
  add("liveFindRetyped", live_find_retyped);
  add("livePending", live_pending);
  add("liveCapture", live_capture);
  add("liveCopied", live_copied);
  add("liveBeginEpoch", live_begin_epoch);
  add("liveEndEpoch", live_end_epoch);
  add("memoryPieces", memory_pieces);
  add("livePieces", live_pieces);
  add("livePut", live_put);
  add("liveRelease", live_release);
  add("openObjects", open_objects);
  return out;
}

}  // namespace dormouse::binding
