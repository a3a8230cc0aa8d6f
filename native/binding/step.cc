// Bounded native steps: each call works on at most a few MiB and may run in any thread.
// Whatever the arguments, a call answers or is refused.
#include <algorithm>
#include <cstring>

#include "binding/entry.h"
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

// What a step puts through a writer's lane, or takes through a reader's.
LaneUse lane_of(const Napi::CallbackInfo& info, size_t object, size_t lane, uint32_t lanes) {
  return LaneUse(arg_u64(info, object), arg_u32(info, lane), lanes);
}

uint64_t arg_nr_pfns(const Napi::CallbackInfo& info, size_t i) {
  const uint64_t nr_pfns = arg_u64(info, i);
  need(nr_pfns >= 1 && nr_pfns <= image::kMaxPfns, "no size of a pfn space");
  return nr_pfns;
}

// Threads a call may start beside its own: more would only wait for each other.
unsigned arg_threads(const Napi::CallbackInfo& info, size_t i) {
  return std::min(arg_u32(info, i), 64u);
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
  const LaneUse lane = lane_of(info, 1, 2, writer->lanes());
  need_range(arg_u64(info, 3), arg_u64(info, 4), memory->nr_pfns(), "pfns");
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
  const LaneUse lane = lane_of(info, 1, 2, reader->lanes());
  need_range(arg_u32(info, 3), arg_u32(info, 4), reader->nr_chunks(), "chunks");
  uint64_t placed = 0;
  Fault fault;
  if (!step::restore_step(*memory, *reader, arg_u32(info, 2), arg_u32(info, 3), arg_u32(info, 4),
                          &placed, &fault))
    return failed(info.Env(), fault);
  return num(info.Env(), placed);
}

Napi::Value digest_create(const Napi::CallbackInfo& info) {
  auto table = std::make_shared<step::DigestTable>(arg_nr_pfns(info, 0));
  return give<step::DigestTable>(info.Env(), std::move(table));
}

// digestDomainStep(memory, digest, firstPfn, count)
Napi::Value digest_domain_step(const Napi::CallbackInfo& info) {
  auto memory = held<host::DomainMemory>(info, 0);
  auto table = held<step::DigestTable>(info, 1);
  const uint64_t first = arg_u64(info, 2), count = arg_u64(info, 3);
  need_range(first, count, std::min(memory->nr_pfns(), table->nr_pfns()), "pfns");
  Fault fault;
  if (!step::digest_domain_step(*memory, *table, first, count, &fault))
    return failed(info.Env(), fault);
  return info.Env().Undefined();
}

// digestImageStep(reader, digest, lane, firstChunk, count)
Napi::Value digest_image_step(const Napi::CallbackInfo& info) {
  auto reader = held<image::Reader>(info, 0);
  auto table = held<step::DigestTable>(info, 1);
  const LaneUse lane = lane_of(info, 0, 2, reader->lanes());
  need_range(arg_u32(info, 3), arg_u32(info, 4), reader->nr_chunks(), "chunks");
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
  auto page = arg_bytes(info, 3);
  need_range(pfn, 1, table->nr_pfns(), "pfns");
  need(page.ByteLength() == host::kPageSize, "not one page");
  table->set(pfn, uint8_t(arg_u32(info, 2)), page.Data());
  return info.Env().Undefined();
}

Napi::Value digest_blank(const Napi::CallbackInfo& info) {
  auto table = held<step::DigestTable>(info, 0);
  const uint64_t pfn = arg_u64(info, 1);
  need_range(pfn, 1, table->nr_pfns(), "pfns");
  table->blank(pfn);
  return info.Env().Undefined();
}

// digestFinish(digest) -> 32 hex digits; releases the table
Napi::Value digest_finish(const Napi::CallbackInfo& info) {
  auto table = held<step::DigestTable>(info, 0);
  Digests::get().release(arg_u64(info, 0), 0);
  const pfn::Hash128 hash = table->finish();
  char text[33];
  std::snprintf(text, sizeof text, "%016llx%016llx", static_cast<unsigned long long>(hash.high),
                static_cast<unsigned long long>(hash.low));
  return Napi::String::New(info.Env(), text);
}

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

// placePages(memory, descs: BigUint64Array, bodies: Buffer) -> pages written
Napi::Value place_pages(const Napi::CallbackInfo& info) {
  auto memory = held<host::DomainMemory>(info, 0);
  auto descs = arg_words(info, 1);
  auto bodies = arg_bytes(info, 2);
  uint64_t placed = 0;
  Fault fault;
  const step::PageBodies pages = {descs.Data(), uint32_t(descs.ElementLength()), bodies.Data(),
                                  bodies.ByteLength() / host::kPageSize};
  if (!step::place_pages(*memory, pages, &placed, &fault)) return failed(info.Env(), fault);
  return num(info.Env(), placed);
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
  using Held = std::shared_ptr<host::DomainMemory>;
  need(info[0].IsExternal(), "argument 1 is no memory of another addon");
  auto external = info[0].As<Napi::External<Held>>();
  need(external.CheckTypeTag(&kMemoryTag) && *external.Data(), "argument 1 is no memory to adopt");
  return give<host::DomainMemory>(info.Env(), std::move(*external.Data()));
}

// trackerCreate(nrPfns) -> tracker
Napi::Value tracker_create(const Napi::CallbackInfo& info) {
  auto tracker = std::make_shared<step::ContentTracker>(arg_nr_pfns(info, 0));
  return give<step::ContentTracker>(info.Env(), std::move(tracker));
}

// trackerRecord(tracker, memory, firstPfn, count)
Napi::Value tracker_record(const Napi::CallbackInfo& info) {
  auto tracker = held<step::ContentTracker>(info, 0);
  auto memory = held<host::DomainMemory>(info, 1);
  const uint64_t first = arg_u64(info, 2), count = arg_u64(info, 3);
  need_range(first, count, std::min(memory->nr_pfns(), tracker->nr_pfns()), "pfns");
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
  if (!tracker->changed_in_all(*memory, arg_threads(info, 2), bitmap.Data(), &changed, &fault))
    return failed(info.Env(), fault);
  return bitmap;
}

// liveCreate(nrPfns, byContent, maxCopiedPages) -> live
Napi::Value live_create(const Napi::CallbackInfo& info) {
  auto live = std::make_shared<step::LivePass>(arg_nr_pfns(info, 0), arg_bool(info, 1));
  Fault fault;
  need(arg_u64(info, 2) <= image::kMaxPfns, "no number of pages");
  if (!live->allocate(arg_u64(info, 2), &fault)) return failed(info.Env(), fault);
  return give<step::LivePass>(info.Env(), std::move(live));
}

// liveStep(live, memory, writer, lane, kind, firstPfn, count) -> pages put, by class
Napi::Value live_step(const Napi::CallbackInfo& info) {
  auto live = held<step::LivePass>(info, 0);
  auto memory = held<host::DomainMemory>(info, 1);
  auto writer = held<image::Writer>(info, 2);
  const uint32_t kind = arg_u32(info, 4);
  const uint64_t first = arg_u64(info, 5), count = arg_u64(info, 6);
  const LaneUse lane = lane_of(info, 2, 3, writer->lanes());
  need_range(first, count, std::min(memory->nr_pfns(), live->pending().nr_pfns()), "pfns");
  need(first % 64 == 0, "a first pfn that is no multiple of 64");
  need(kind <= uint32_t(step::PassKind::standing), "no kind of pass");
  need(kind != uint32_t(step::PassKind::seek) || live->by_content(), "not by content");
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
  auto bitmap = arg_bytes(info, 2);
  need(bitmap.ByteLength() >= (live->pending().nr_pfns() + 7) / 8, "a bitmap of fewer pfns");
  Fault fault;
  if (!live->merge_log(*memory, bitmap.Data(), &fault)) return failed(info.Env(), fault);
  return info.Env().Undefined();
}

// liveFindRetyped(live, memory)
Napi::Value live_find_retyped(const Napi::CallbackInfo& info) {
  auto live = held<step::LivePass>(info, 0);
  auto memory = held<host::DomainMemory>(info, 1);
  need(!live->by_content(), "by content, without page types");
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
  held<step::LivePass>(info, 0)->begin_epoch(arg_bool(info, 1));
  return info.Env().Undefined();
}

// liveEndEpoch(live, committed)
Napi::Value live_end_epoch(const Napi::CallbackInfo& info) {
  auto live = held<step::LivePass>(info, 0);
  if (arg_bool(info, 1))
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
  how.thorough = flag_field(request, "thorough");
  how.anywhere = flag_field(request, "anywhere");
  how.max_pages = field(request, "maxPages");
  how.threads = unsigned(std::min<uint64_t>(field(request, "threads"), 64));
  return how;
}

// liveCapture(live, memory, { logged, thorough, anywhere, maxPages, threads }) -> whether copied
Napi::Value live_capture(const Napi::CallbackInfo& info) {
  auto live = held<step::LivePass>(info, 0);
  auto memory = held<host::DomainMemory>(info, 1);
  const auto request = arg_object(info, 2);
  const bool logged = !request.Get("logged").IsNull();
  need(logged != live->by_content(), "a log of what is tracked by content, or none of what is not");
  const step::CaptureHow how = capture_how(request);
  Fault fault;
  if (logged) {
    auto bitmap = bytes_field(request, "logged");
    need(bitmap.ByteLength() >= (live->pending().nr_pfns() + 7) / 8, "a bitmap of fewer pfns");
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

// Pages of a piece: fewer than a word of the set would only make more pieces.
uint64_t arg_pages(const Napi::CallbackInfo& info, size_t i) {
  const uint64_t pages = arg_u64(info, i);
  need(pages >= 64, "pieces of fewer than 64 pages");
  return pages;
}

// memoryPieces(memory, nrPfns, pages) -> [first, count][]
Napi::Value memory_pieces(const Napi::CallbackInfo& info) {
  auto memory = held<host::DomainMemory>(info, 0);
  const uint64_t nr_pfns = arg_u64(info, 1);
  need_range(0, nr_pfns, memory->nr_pfns(), "pfns");
  return describe(info.Env(), step::cut_pieces(*memory, nr_pfns, arg_pages(info, 2), nullptr));
}

// livePieces(live, memory, pages) -> [first, count][]
Napi::Value live_pieces(const Napi::CallbackInfo& info) {
  auto live = held<step::LivePass>(info, 0);
  auto memory = held<host::DomainMemory>(info, 1);
  const step::PendingSet& pending = live->pending();
  return describe(info.Env(),
                  step::cut_pieces(*memory, pending.nr_pfns(), arg_pages(info, 2), &pending));
}

// livePut(live, writer, lane, first, count) -> pages put, by class
Napi::Value live_put(const Napi::CallbackInfo& info) {
  auto live = held<step::LivePass>(info, 0);
  auto writer = held<image::Writer>(info, 1);
  const LaneUse lane = lane_of(info, 1, 2, writer->lanes());
  uint64_t counts[16] = {};
  Fault fault;
  if (!live->put(*writer, arg_u32(info, 2), arg_u64(info, 3), arg_u64(info, 4), counts, &fault))
    return failed(info.Env(), fault);
  return by_class(info.Env(), counts);
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
  add<save_step>(out, "saveStep");
  add<restore_step>(out, "restoreStep");
  add<digest_create>(out, "digestCreate");
  add<digest_domain_step>(out, "digestDomainStep");
  add<digest_image_step>(out, "digestImageStep");
  add<digest_set_page>(out, "digestSetPage");
  add<digest_blank>(out, "digestBlank");
  add<digest_finish>(out, "digestFinish");
  add<release<step::DigestTable>>(out, "digestRelease");
  add<query_pages>(out, "queryPages");
  add<read_pages>(out, "readPages");
  add<write_pages>(out, "writePages");
  add<write_p2m_leaves>(out, "writeP2mLeaves");
  add<place_pages>(out, "placePages");
  add<localise_tables>(out, "localiseTables");
  add<frames_to_pfns>(out, "framesToPfns");
  add<pfns_to_frames>(out, "pfnsToFrames");
  add<adopt_memory>(out, "adoptMemory");
  add<release<host::DomainMemory>>(out, "releaseMemory");
  add<tracker_create>(out, "trackerCreate");
  add<tracker_record>(out, "trackerRecord");
  add<tracker_changed>(out, "trackerChanged");
  add<release<step::ContentTracker>>(out, "trackerRelease");
  add<live_create>(out, "liveCreate");
  add<live_step>(out, "liveStep");
  add<live_merge>(out, "liveMerge");
  add<live_find_retyped>(out, "liveFindRetyped");
  add<live_pending>(out, "livePending");
  add<live_capture>(out, "liveCapture");
  add<live_copied>(out, "liveCopied");
  add<live_begin_epoch>(out, "liveBeginEpoch");
  add<live_end_epoch>(out, "liveEndEpoch");
  add<memory_pieces>(out, "memoryPieces");
  add<live_pieces>(out, "livePieces");
  add<live_put>(out, "livePut");
  add<release<step::LivePass>>(out, "liveRelease");
  add<open_objects>(out, "openObjects");
  return out;
}

}  // namespace dormouse::binding
