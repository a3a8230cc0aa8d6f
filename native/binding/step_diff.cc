// Steps that find what differs between two images.
#include "binding/entry.h"
#include "binding/step.h"
#include "step/image_diff.h"

namespace dormouse::binding {
namespace {

step::DiffSide arg_side(const Napi::CallbackInfo& info, size_t i) {
  return arg_bool(info, i) ? step::kTo : step::kFrom;
}

// diffCreate(from, to, sameFiles: for each file of `from` the number of `to`'s that it is) -> diff
Napi::Value diff_create(const Napi::CallbackInfo& info) {
  auto from = arg_image(info, 0), to = arg_image(info, 1);
  const auto list = arg_array(info, 2);
  need(list.Length() == from->used_sources().size(), "not a number for each file");
  std::vector<uint32_t> same_files;
  for (uint32_t i = 0; i < list.Length(); ++i) {
    const uint64_t file = number_at(list, i);
    need(file <= UINT32_MAX, "no number of a file");
    same_files.push_back(uint32_t(file));
  }
  return give<step::ImageDiff>(
      info.Env(), std::make_shared<step::ImageDiff>(std::move(from), std::move(to), same_files));
}

// diffBlank(diff, ofTo, pfn, first, end)
Napi::Value diff_blank(const Napi::CallbackInfo& info) {
  auto diff = held<step::ImageDiff>(info, 0);
  const auto side = arg_side(info, 1);
  const uint64_t pfn = arg_u64(info, 2);
  need_range(pfn, 1, diff->reader(side).nr_pfns(), "pfns");
  const uint32_t first = arg_u32(info, 3), end = arg_u32(info, 4);
  need(first <= end && end <= image::kPageBytes, "no bytes of a page");
  diff->blank(side, pfn, first, end);
  return info.Env().Undefined();
}

// diffSeek(diff, ofTo, most) -> [firstChunk, count][]
Napi::Value diff_seek(const Napi::CallbackInfo& info) {
  auto diff = held<step::ImageDiff>(info, 0);
  return pieces_value(info.Env(), diff->seek(arg_side(info, 1), arg_u32(info, 2)));
}

// diffLook(diff, ofTo, lane, firstChunk, count)
Napi::Value diff_look(const Napi::CallbackInfo& info) {
  auto diff = held<step::ImageDiff>(info, 0);
  const auto side = arg_side(info, 1);
  const LaneUse lane = lane_of(info, 0, 2, diff->reader(side).lanes());
  const uint32_t first = arg_u32(info, 3), count = arg_u32(info, 4);
  need_range(first, count, diff->reader(side).nr_chunks(), "chunks");
  Fault fault;
  if (!diff->look(side, arg_u32(info, 2), first, count, &fault)) return failed(info.Env(), fault);
  return info.Env().Undefined();
}

// diffFinish(diff) -> {from, to, runs: Float64Array of [first, count]}[], classes by number
Napi::Value diff_finish(const Napi::CallbackInfo& info) {
  const auto found = held<step::ImageDiff>(info, 0)->differing();
  Napi::Array out = Napi::Array::New(info.Env(), found.size());
  for (uint32_t i = 0; i < found.size(); ++i) {
    auto runs = Napi::Float64Array::New(info.Env(), found[i].runs.size() * 2);
    for (size_t k = 0; k < found[i].runs.size(); ++k) {
      runs[2 * k] = double(found[i].runs[k].first);
      runs[2 * k + 1] = double(found[i].runs[k].count);
    }
    Napi::Object classes = Napi::Object::New(info.Env());
    classes.Set("from", num(info.Env(), found[i].from));
    classes.Set("to", num(info.Env(), found[i].to));
    classes.Set("runs", runs);
    out.Set(i, classes);
  }
  return out;
}

}  // namespace

void add_diff_steps(Napi::Object out) {
  add<diff_create>(out, "diffCreate");
  add<diff_blank>(out, "diffBlank");
  add<diff_seek>(out, "diffSeek");
  add<diff_look>(out, "diffLook");
  add<diff_finish>(out, "diffFinish");
  add<release<step::ImageDiff>>(out, "diffRelease");
}

}  // namespace dormouse::binding
