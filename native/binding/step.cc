// Bounded native steps: each call works on at most a few MiB and may run in any thread.
// Whatever the arguments, a call answers or is refused.
#include "binding/step.h"

#include <algorithm>
#include <cstdio>

#include "binding/entry.h"
#include "host/host.h"
#include "image/image_reader.h"
#include "image/writer.h"
#include "step/content_tracker.h"
#include "step/digest_step.h"
#include "step/image_diff.h"
#include "step/live_pass.h"
#include "step/page_file.h"
#include "step/restore_step.h"
#include "step/rewind.h"
#include "step/save_step.h"

namespace dormouse::binding {
namespace {

using Memories = Registry<host::DomainMemory>;
using Writers = Registry<image::Writer>;
using Readers = Registry<image::Reader>;
using Digests = Registry<step::DigestTable>;
using Trackers = Registry<step::ContentTracker>;
using LivePasses = Registry<step::LivePass>;
using Rewinds = Registry<step::Rewind>;
using Diffs = Registry<step::ImageDiff>;
using PageFiles = Registry<step::PageFile>;

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

// restoreStep(memory, reader, lane, firstUnit, count) -> pages placed
Napi::Value restore_step(const Napi::CallbackInfo& info) {
  auto memory = held<host::DomainMemory>(info, 0);
  auto reader = held<image::Reader>(info, 1);
  const LaneUse lane = lane_of(info, 1, 2, reader->lanes());
  need_range(arg_u32(info, 3), arg_u32(info, 4), reader->nr_units(), "units");
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
  const LaneUse use = lane_of(info, 0, 1, reader->lanes());
  const uint32_t first = arg_u32(info, 2), count = arg_u32(info, 3);
  need_range(first, count, reader->nr_chunks(), "chunks");
  Fault fault;
  for (uint32_t i = first; i < first + count; ++i)
    if (!reader->hash_chunk(arg_u32(info, 1), i, &fault)) return failed(info.Env(), fault);
  return info.Env().Undefined();
}

Napi::Value digest_create(const Napi::CallbackInfo& info) {
  auto table = std::make_shared<step::DigestTable>(arg_nr_pfns(info, 0));
  return give<step::DigestTable>(info.Env(), std::move(table));
}

Napi::Value digest_create_of_image(const Napi::CallbackInfo& info) {
  const auto reader = arg_image(info, 0);
  return give<step::DigestTable>(info.Env(), std::make_shared<step::DigestTable>(reader->map()));
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

// openObjects() -> how many memories, writers, readers, digests, trackers, live passes, rewinds,
// diffs and page files are registered (leak tests)
Napi::Value open_objects(const Napi::CallbackInfo& info) {
  Napi::Object out = Napi::Object::New(info.Env());
  out.Set("memories", num(info.Env(), Memories::get().count()));
  out.Set("writers", num(info.Env(), Writers::get().count()));
  out.Set("readers", num(info.Env(), Readers::get().count()));
  out.Set("digests", num(info.Env(), Digests::get().count()));
  out.Set("trackers", num(info.Env(), Trackers::get().count()));
  out.Set("livePasses", num(info.Env(), LivePasses::get().count()));
  out.Set("rewinds", num(info.Env(), Rewinds::get().count()));
  out.Set("diffs", num(info.Env(), Diffs::get().count()));
  out.Set("pageFiles", num(info.Env(), PageFiles::get().count()));
  return out;
}

}  // namespace

Napi::Object init_step(Napi::Env env) {
  Napi::Object out = Napi::Object::New(env);
  add<save_step>(out, "saveStep");
  add<restore_step>(out, "restoreStep");
  add<hash_step>(out, "hashStep");
  add<digest_create>(out, "digestCreate");
  add<digest_create_of_image>(out, "digestCreateOfImage");
  add<digest_domain_step>(out, "digestDomainStep");
  add<digest_image_step>(out, "digestImageStep");
  add<digest_set_page>(out, "digestSetPage");
  add<digest_blank>(out, "digestBlank");
  add<digest_finish>(out, "digestFinish");
  add<release<step::DigestTable>>(out, "digestRelease");
  add<open_objects>(out, "openObjects");
  add_memory_steps(out);
  add_live_steps(out);
  add_rewind_steps(out);
  add_diff_steps(out);
  add_export_steps(out);
  return out;
}

}  // namespace dormouse::binding
