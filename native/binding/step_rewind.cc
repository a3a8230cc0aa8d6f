// Steps of a domain that goes back in place to what an image holds of it.
#include <algorithm>

#include "binding/entry.h"
#include "binding/step.h"
#include "binding/task.h"
#include "step/rewind.h"

namespace dormouse::binding {
namespace {

// rewindCreate(reader, leafPfns: BigUint64Array, startInfoPfn or null, maxKept) -> rewind
Napi::Value rewind_create(const Napi::CallbackInfo& info) {
  auto reader = arg_image(info, 0);
  const auto words = arg_words(info, 1);
  std::vector<uint64_t> leaves(words.Data(), words.Data() + words.ElementLength());
  for (const uint64_t pfn : leaves) need_range(pfn, 1, reader->nr_pfns(), "pfns");
  uint64_t start_info = step::Rewind::kNone;
  if (!info[2].IsNull()) {
    start_info = arg_u64(info, 2);
    need_range(start_info, 1, reader->nr_pfns(), "pfns");
  }
  need(arg_u64(info, 3) <= image::kMaxPfns, "no number of pages");
  auto rewind = std::make_shared<step::Rewind>(std::move(reader), std::move(leaves), start_info);
  Fault fault;
  if (!rewind->allocate(arg_u64(info, 3), &fault)) return failed(info.Env(), fault);
  return give<step::Rewind>(info.Env(), std::move(rewind));
}

// rewindKeepFrames(rewind, alonePfns: BigUint64Array)
Napi::Value rewind_keep_frames(const Napi::CallbackInfo& info) {
  auto rewind = held<step::Rewind>(info, 0);
  const auto words = arg_words(info, 1);
  std::vector<uint64_t> alone(words.Data(), words.Data() + words.ElementLength());
  for (const uint64_t pfn : alone) need_range(pfn, 1, rewind->nr_pfns(), "pfns");
  rewind->keep_frames(std::move(alone));
  return info.Env().Undefined();
}

// rewindSuspectAll(rewind) -> whether it could
Napi::Value rewind_suspect_all(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), held<step::Rewind>(info, 0)->suspect_all());
}

// The memory of argument i, which is as large as the image.
std::shared_ptr<host::DomainMemory> memory_of(const Napi::CallbackInfo& info, size_t i,
                                              const step::Rewind& rewind) {
  auto memory = held<host::DomainMemory>(info, i);
  need(memory->nr_pfns() == rewind.nr_pfns(), "a memory of another size");
  return memory;
}

// rewindLook(rewind, memory)
Napi::Value rewind_look(const Napi::CallbackInfo& info) {
  auto rewind = held<step::Rewind>(info, 0);
  Fault fault;
  if (!rewind->look(*memory_of(info, 1, *rewind), &fault)) return failed(info.Env(), fault);
  return info.Env().Undefined();
}

// rewindMerge(rewind, bitmap)
Napi::Value rewind_merge(const Napi::CallbackInfo& info) {
  auto rewind = held<step::Rewind>(info, 0);
  auto bitmap = arg_bytes(info, 1);
  need(bitmap.ByteLength() >= (rewind->nr_pfns() + 7) / 8, "a bitmap of fewer pfns");
  rewind->merge(bitmap.Data());
  return info.Env().Undefined();
}

// rewindCompare(rewind, memory, lane, firstUnit, count) -> pages that differ
Napi::Value rewind_compare(const Napi::CallbackInfo& info) {
  auto rewind = held<step::Rewind>(info, 0);
  auto memory = memory_of(info, 1, *rewind);
  const LaneUse lane = lane_of(info, 0, 2, rewind->reader().lanes());
  const uint32_t first = arg_u32(info, 3), count = arg_u32(info, 4);
  need_range(first, count, rewind->reader().nr_units(), "units");
  uint64_t differing = 0;
  Fault fault;
  if (!rewind->compare(*memory, arg_u32(info, 2), first, count, &differing, &fault))
    return failed(info.Env(), fault);
  return num(info.Env(), differing);
}

Napi::Value as_numbers(Napi::Env env, const std::vector<uint64_t>& pfns) {
  Napi::Array out = Napi::Array::New(env, pfns.size());
  for (uint32_t i = 0; i < pfns.size(); ++i) out.Set(i, num(env, pfns[i]));
  return out;
}

// rewindMissing(rewind) -> [firstChunk, count][]
Napi::Value rewind_missing(const Napi::CallbackInfo& info) {
  return pieces_value(info.Env(), held<step::Rewind>(info, 0)->missing());
}

// rewindKeep(rewind, lane, firstChunk, count)
Napi::Value rewind_keep(const Napi::CallbackInfo& info) {
  auto rewind = held<step::Rewind>(info, 0);
  const LaneUse lane = lane_of(info, 0, 1, rewind->reader().lanes());
  const uint32_t first = arg_u32(info, 2), count = arg_u32(info, 3);
  need_range(first, count, rewind->reader().nr_chunks(), "chunks");
  Fault fault;
  if (!rewind->keep(arg_u32(info, 1), first, count, &fault)) return failed(info.Env(), fault);
  return info.Env().Undefined();
}

// rewindPlan(rewind, memory, whole) -> { gained, lost, tables, unpinned, pins }
Napi::Value rewind_plan(const Napi::CallbackInfo& info) {
  auto rewind = held<step::Rewind>(info, 0);
  auto memory = memory_of(info, 1, *rewind);
  step::RewindPlan plan;
  Fault fault;
  if (!rewind->plan(*memory, arg_bool(info, 2), &plan, &fault)) return failed(info.Env(), fault);
  Napi::Env env = info.Env();
  Napi::Array pins = Napi::Array::New(env, plan.pins.size());
  for (uint32_t i = 0; i < plan.pins.size(); ++i) {
    Napi::Object table = Napi::Object::New(env);
    table.Set("pfn", num(env, plan.pins[i].pfn));
    table.Set("level", num(env, uint64_t(plan.pins[i].level)));
    pins.Set(i, table);
  }
  Napi::Object out = Napi::Object::New(env);
  out.Set("gained", pieces_value(env, plan.gained));
  out.Set("lost", pieces_value(env, plan.lost));
  out.Set("tables", as_numbers(env, plan.tables));
  out.Set("unpinned", as_numbers(env, plan.unpinned));
  out.Set("pins", pins);
  return out;
}

Napi::Value counted(Napi::Env env, const step::RewindCounts& counts) {
  Napi::Array out = Napi::Array::New(env, 2);
  out.Set(0u, num(env, counts.put));
  out.Set(1u, num(env, counts.same));
  return out;
}

// rewindWrite(rewind, memory, threads) -> [pages put, pages that were the same]; a Promise of it
// where that takes longer than to come back from another thread
Napi::Value rewind_write(const Napi::CallbackInfo& info) {
  auto rewind = held<step::Rewind>(info, 0);
  auto memory = memory_of(info, 1, *rewind);
  const unsigned threads = std::min(arg_u32(info, 2), 64u);
  auto counts = std::make_shared<step::RewindCounts>();
  constexpr uint64_t kFewPages = 256;
  if (rewind->candidates() <= kFewPages) {
    Fault fault;
    if (!rewind->write(*memory, 1, counts.get(), &fault)) return failed(info.Env(), fault);
    return counted(info.Env(), *counts);
  }
  return Task::start(
      info.Env(),
      [=](Fault* fault) { return rewind->write(*memory, threads, counts.get(), fault); }, {},
      [counts](Napi::Env env) { return counted(env, *counts); });
}

// rewindPlace(rewind, memory, lane, firstChunk, count) -> [pages put, pages that were the same]
Napi::Value rewind_place(const Napi::CallbackInfo& info) {
  auto rewind = held<step::Rewind>(info, 0);
  auto memory = memory_of(info, 1, *rewind);
  const LaneUse lane = lane_of(info, 0, 2, rewind->reader().lanes());
  const uint32_t first = arg_u32(info, 3), count = arg_u32(info, 4);
  need_range(first, count, rewind->reader().nr_chunks(), "chunks");
  step::RewindCounts counts;
  Fault fault;
  if (!rewind->place(*memory, arg_u32(info, 2), first, count, &counts, &fault))
    return failed(info.Env(), fault);
  return counted(info.Env(), counts);
}

}  // namespace

void add_rewind_steps(Napi::Object out) {
  add<rewind_create>(out, "rewindCreate");
  add<rewind_keep_frames>(out, "rewindKeepFrames");
  add<rewind_suspect_all>(out, "rewindSuspectAll");
  add<rewind_look>(out, "rewindLook");
  add<rewind_merge>(out, "rewindMerge");
  add<rewind_compare>(out, "rewindCompare");
  add<rewind_missing>(out, "rewindMissing");
  add<rewind_keep>(out, "rewindKeep");
  add<rewind_plan>(out, "rewindPlan");
  add<rewind_write>(out, "rewindWrite");
  add<rewind_place>(out, "rewindPlace");
  add<release<step::Rewind>>(out, "rewindRelease");
}

}  // namespace dormouse::binding
