// Steps of images taken while a domain runs: what changed, captures, and pieces of work.
#include <algorithm>

#include "binding/entry.h"
#include "binding/external.h"
#include "binding/step.h"
#include "host/host.h"
#include "image/writer.h"
#include "step/capture_work.h"
#include "step/content_tracker.h"
#include "step/live_pass.h"
#include "step/pieces.h"

namespace dormouse::binding {
namespace {

// Threads a call may start beside its own: more would only wait for each other.
unsigned arg_threads(const Napi::CallbackInfo& info, size_t i) {
  return std::min(arg_u32(info, i), 64u);
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

// liveCopyingMs(live) -> what copying took of the last capture
Napi::Value live_copying_ms(const Napi::CallbackInfo& info) {
  auto live = held<step::LivePass>(info, 0);
  return Napi::Number::New(info.Env(), double(live->copying_ns()) / 1e6);
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

// exportCapture(live, memory, { logged, thorough, anywhere, maxPages, threads }) -> External for an
// addon that stops the domain itself, and reads its log if `logged` is true
Napi::Value export_capture(const Napi::CallbackInfo& info) {
  auto live = held<step::LivePass>(info, 0);
  const auto request = arg_object(info, 2);
  need(flag_field(request, "logged") != live->by_content(),
       "a log of what is tracked by content, or none of what is not");
  return hand_over<host::StoppedWork>(
      info.Env(), std::make_shared<step::CaptureWork>(live, held<host::DomainMemory>(info, 1),
                                                      capture_how(request)));
}

// liveCapture(live, memory, { logged, thorough, anywhere, maxPages, threads }) -> whether copied
Napi::Value live_capture(const Napi::CallbackInfo& info) {
  auto live = held<step::LivePass>(info, 0);
  auto memory = held<host::DomainMemory>(info, 1);
  const auto request = arg_object(info, 2);
  const bool logged = !request.Get("logged").IsNull();
  need(logged != live->by_content(), "a log of what is tracked by content, or none of what is not");
  step::CaptureWork work(live, memory, capture_how(request));
  uint8_t* log = nullptr;
  if (logged) {
    auto bitmap = bytes_field(request, "logged");
    need(bitmap.ByteLength() >= (work.logged_pfns() + 7) / 8, "a bitmap of fewer pfns");
    log = bitmap.Data();
  }
  Fault fault;
  bool copied = false;
  if (!work.run(log, &copied, &fault)) return failed(info.Env(), fault);
  return Napi::Boolean::New(info.Env(), copied);
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
  return pieces_value(info.Env(), step::cut_pieces(*memory, nr_pfns, arg_pages(info, 2), nullptr));
}

// livePieces(live, memory, pages) -> [first, count][]
Napi::Value live_pieces(const Napi::CallbackInfo& info) {
  auto live = held<step::LivePass>(info, 0);
  auto memory = held<host::DomainMemory>(info, 1);
  const step::PendingSet& pending = live->pending();
  return pieces_value(info.Env(),
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

}  // namespace

void add_live_steps(Napi::Object out) {
  add<tracker_create>(out, "trackerCreate");
  add<tracker_record>(out, "trackerRecord");
  add<tracker_changed>(out, "trackerChanged");
  add<release<step::ContentTracker>>(out, "trackerRelease");
  add<live_create>(out, "liveCreate");
  add<live_step>(out, "liveStep");
  add<live_merge>(out, "liveMerge");
  add<live_find_retyped>(out, "liveFindRetyped");
  add<live_pending>(out, "livePending");
  add<export_capture>(out, "exportCapture");
  add<live_capture>(out, "liveCapture");
  add<live_copied>(out, "liveCopied");
  add<live_copying_ms>(out, "liveCopyingMs");
  add<live_begin_epoch>(out, "liveBeginEpoch");
  add<live_end_epoch>(out, "liveEndEpoch");
  add<memory_pieces>(out, "memoryPieces");
  add<live_pieces>(out, "livePieces");
  add<live_put>(out, "livePut");
  add<release<step::LivePass>>(out, "liveRelease");
}

}  // namespace dormouse::binding
