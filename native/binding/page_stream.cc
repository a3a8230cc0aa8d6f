// Streams of pages by number; a stream is an image::Writer to the steps that put pages into it.
#include "image/page_stream.h"

#include <cstring>

#include "binding/napi_util.h"
#include "binding/registry.h"

namespace dormouse::binding {
namespace {

using image::PageStream;
using Writers = Registry<image::Writer>;

std::shared_ptr<PageStream> arg_stream(const Napi::CallbackInfo& info) {
  auto stream = std::dynamic_pointer_cast<PageStream>(Writers::get().find(arg_u32(info, 0)));
  DM_ASSERT(stream);
  return stream;
}

// (fd, libxc: boolean, nrPfns, lanes, id) -> handle
Napi::Value create_stream(const Napi::CallbackInfo& info) {
  auto id = info[4].As<Napi::Buffer<uint8_t>>();
  DM_ASSERT(id.Length() == 16);
  const image::StreamSetup setup = {
      int(arg_u32(info, 0)),
      info[1].ToBoolean() ? image::StreamFormat::libxc : image::StreamFormat::frames,
      arg_u64(info, 2), arg_u32(info, 3), id.Data()};
  DM_ASSERT(setup.nr_pfns >= 1 && setup.nr_pfns <= image::kMaxPfns && setup.lanes >= 1);
  Fault fault;
  auto stream = PageStream::create(setup, &fault);
  if (stream) return num(info.Env(), Writers::get().add(std::move(stream)));
  throw_fault(info.Env(), fault);
  return {};
}

// (handle, kind, body)
Napi::Value put_frame(const Napi::CallbackInfo& info) {
  auto body = info[2].As<Napi::Buffer<uint8_t>>();
  Fault fault;
  if (!arg_stream(info)->put_frame(uint8_t(arg_u32(info, 1)), body.Data(), uint32_t(body.Length()),
                                   &fault))
    throw_fault(info.Env(), fault);
  return {};
}

// (handle) -> {byClass, writtenBytes}
Napi::Value stream_counts(const Napi::CallbackInfo& info) {
  const auto stream = arg_stream(info);
  Napi::Array by_class = Napi::Array::New(info.Env(), image::kClasses);
  by_class.Set(uint32_t(0), num(info.Env(), 0));
  for (uint32_t c = 1; c < image::kClasses; c++)
    by_class.Set(c, num(info.Env(), stream->count(uint8_t(c))));
  Napi::Object counts = Napi::Object::New(info.Env());
  counts.Set("byClass", by_class);
  counts.Set("writtenBytes", num(info.Env(), stream->written_bytes()));
  return counts;
}

// (handle): that every pfn was put
Napi::Value check_complete(const Napi::CallbackInfo& info) {
  Fault fault;
  if (!arg_stream(info)->check_complete(&fault)) throw_fault(info.Env(), fault);
  return {};
}

// (handle) -> whether it was registered
Napi::Value release_stream(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), Writers::get().release(arg_u32(info, 0)));
}

// (body of a frame, whether of a newer minor version, nrPfns, descs out, bodies out) -> [pages,
// bodies]
Napi::Value decode_frame(const Napi::CallbackInfo& info) {
  auto body = info[0].As<Napi::Buffer<uint8_t>>();
  auto descs = info[3].As<Napi::BigUint64Array>();
  auto bodies = info[4].As<Napi::Buffer<uint8_t>>();
  DM_ASSERT(body.Length() <= image::kMaxChunkSpan);
  DM_ASSERT(descs.ElementLength() == image::kMaxChunkPages &&
            bodies.Length() == uint64_t(image::kMaxChunkBodies) * image::kPageBytes);
  const uint64_t padded = image::whole_pages(body.Length());
  auto chunk = image::allocate_aligned(padded ? padded : image::kPageBytes);
  Fault fault;
  uint32_t n_pages = 0, n_bodies = 0;
  const image::ChunkExpect expect = {0, arg_u64(info, 2), info[1].ToBoolean()};
  bool good = chunk != nullptr || fault.raise("NO_MEMORY", "no memory for a frame");
  if (good) {
    std::memcpy(chunk.get(), body.Data(), body.Length());
    std::memset(chunk.get() + body.Length(), 0, padded - body.Length());
    good = image::decode_chunk(chunk.get(), padded, expect, descs.Data(), &n_pages, bodies.Data(),
                               &n_bodies, &fault);
  }
  if (!good) {
    throw_fault(info.Env(), fault);
    return {};
  }
  Napi::Array sizes = Napi::Array::New(info.Env(), 2);
  sizes.Set(uint32_t(0), num(info.Env(), n_pages));
  sizes.Set(uint32_t(1), num(info.Env(), n_bodies));
  return sizes;
}

}  // namespace

Napi::Object init_page_stream(Napi::Env env) {
  Napi::Object exports = Napi::Object::New(env);
  auto add = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    exports.Set(name, Napi::Function::New(env, function, name));
  };
  add("create", create_stream);
  add("putFrame", put_frame);
  add("counts", stream_counts);
  add("checkComplete", check_complete);
  add("release", release_stream);
  add("decodeFrame", decode_frame);
  return exports;
}

}  // namespace dormouse::binding
