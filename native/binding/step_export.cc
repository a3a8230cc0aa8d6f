// Steps that write an image's pages once more: into another image, or to their places in a file.
#include "binding/entry.h"
#include "binding/step.h"
#include "image/image_writer.h"
#include "step/copy_step.h"
#include "step/page_file.h"

namespace dormouse::binding {
namespace {

// copyStep(reader, writer, lane, firstUnit, count, asStored)
Napi::Value copy_step(const Napi::CallbackInfo& info) {
  const auto reader = arg_image(info, 0);
  const auto writer = std::dynamic_pointer_cast<image::ImageWriter>(held<image::Writer>(info, 1));
  need(writer != nullptr, "the writer is of a stream");
  const LaneUse from = lane_of(info, 0, 2, reader->lanes());
  const LaneUse to = lane_of(info, 1, 2, writer->lanes());
  const uint32_t first = arg_u32(info, 3), count = arg_u32(info, 4);
  need_range(first, count, reader->nr_units(), "units");
  Fault fault;
  if (!step::copy_step(*reader, *writer, arg_u32(info, 2), first, count, arg_bool(info, 5), &fault))
    return failed(info.Env(), fault);
  return info.Env().Undefined();
}

// copyHoles(reader, writer, lane, firstPfn, count)
Napi::Value copy_holes(const Napi::CallbackInfo& info) {
  const auto reader = arg_image(info, 0);
  const auto writer = held<image::Writer>(info, 1);
  const LaneUse to = lane_of(info, 1, 2, writer->lanes());
  const uint64_t first = arg_u64(info, 3), count = arg_u64(info, 4);
  need_range(first, count, reader->nr_pfns(), "pfns");
  need(count > 0, "no pfns");
  Fault fault;
  if (!step::copy_holes(reader->map(), *writer, arg_u32(info, 2), first, count, &fault))
    return failed(info.Env(), fault);
  return info.Env().Undefined();
}

// pageFilePut(file, lane, firstChunk, count)
Napi::Value page_file_put(const Napi::CallbackInfo& info) {
  const auto file = held<step::PageFile>(info, 0);
  const LaneUse lane = lane_of(info, 0, 1, file->reader().lanes());
  const uint32_t first = arg_u32(info, 2), count = arg_u32(info, 3);
  need_range(first, count, file->reader().nr_chunks(), "chunks");
  Fault fault;
  if (!file->put(arg_u32(info, 1), first, count, &fault)) return failed(info.Env(), fault);
  return info.Env().Undefined();
}

}  // namespace

void add_export_steps(Napi::Object out) {
  add<copy_step>(out, "copyStep");
  add<copy_holes>(out, "copyHoles");
  add<page_file_put>(out, "pageFilePut");
  add<release<step::PageFile>>(out, "pageFileRelease");
}

}  // namespace dormouse::binding
