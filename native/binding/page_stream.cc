// Streams of pages by number; a stream is an image::Writer to the steps that put pages into it.
#include "image/page_stream.h"

#include <cstring>
#include <vector>

#include "binding/entry.h"
#include "binding/registry.h"
#include "binding/task.h"

namespace dormouse::binding {
namespace {

using image::PageStream;

std::shared_ptr<PageStream> arg_stream(const Napi::CallbackInfo& info) {
  auto stream = std::dynamic_pointer_cast<PageStream>(held<image::Writer>(info, 0));
  need(stream != nullptr, "the writer is no stream");
  return stream;
}

// (fd, libxc: boolean, nrPfns, lanes, id, stallMs) -> handle
Napi::Value create_stream(const Napi::CallbackInfo& info) {
  const auto id = arg_bytes(info, 4);
  need(id.ByteLength() == 16, "no id of 16 bytes");
  const image::StreamSetup setup = {
      int(arg_u32(info, 0)),
      arg_bool(info, 1) ? image::StreamFormat::libxc : image::StreamFormat::frames,
      arg_u64(info, 2),
      arg_u32(info, 3),
      id.Data(),
      arg_u32(info, 5)};
  need(setup.nr_pfns >= 1 && setup.nr_pfns <= image::kMaxPfns, "no size of a pfn space");
  need(setup.lanes >= 1 && setup.lanes <= kMaxLanes, "no number of lanes");
  Fault fault;
  auto stream = PageStream::create(setup, &fault);
  if (!stream) return failed(info.Env(), fault);
  return give<image::Writer>(info.Env(), std::move(stream));
}

// What is written off the event loop: a copy, as JavaScript may change its own meanwhile.
using Bytes = std::vector<uint8_t>;
Bytes copy_of(const Napi::Uint8Array& array) {
  need(array.ByteLength() <= UINT32_MAX, "more than a frame");
  return Bytes(array.Data(), array.Data() + array.ByteLength());
}

// (handle, kind, body) -> Promise
Napi::Value put_frame(const Napi::CallbackInfo& info) {
  const auto kind = uint8_t(arg_u32(info, 1));
  return Task::start(info.Env(), [stream = arg_stream(info), kind,
                                  body = copy_of(arg_bytes(info, 2))](Fault* fault) {
    return stream->put_frame(kind, body.data(), uint32_t(body.size()), fault);
  });
}

// (handle, bytes) -> Promise
Napi::Value put_bytes(const Napi::CallbackInfo& info) {
  return Task::start(
      info.Env(), [stream = arg_stream(info), bytes = copy_of(arg_bytes(info, 1))](Fault* fault) {
        return stream->put_bytes(bytes.data(), bytes.size(), fault);
      });
}

// (handle): whoever writes, and will, has CANCELLED
Napi::Value cancel(const Napi::CallbackInfo& info) {
  arg_stream(info)->cancel();
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

// (frame, bytes of its body, whether of a newer minor version, nrPfns, descs out, bodies out)
// -> Promise of [pages, bodies]. The frame has room for whole pages: what follows its body is lost.
Napi::Value decode_frame(const Napi::CallbackInfo& info) {
  auto frame = arg_bytes(info, 0);
  const uint64_t bytes = arg_u64(info, 1), padded = image::whole_pages(bytes);
  auto descs = arg_words(info, 4);
  auto bodies = arg_bytes(info, 5);
  need(bytes <= image::kMaxChunkSpan && padded <= frame.ByteLength(), "more than a chunk");
  need(descs.ElementLength() == image::kMaxChunkPages &&
           bodies.ByteLength() == uint64_t(image::kMaxChunkBodies) * image::kPageBytes,
       "no room for the largest chunk");
  const image::ChunkExpect expect = {0, arg_u64(info, 3), arg_bool(info, 2)};
  struct Sizes {
    uint32_t pages = 0, bodies = 0;
  };
  auto sizes = std::make_shared<Sizes>();
  const auto work = [=, chunk = frame.Data(), to = descs.Data(),
                     into = bodies.Data()](Fault* fault) {
    std::memset(chunk + bytes, 0, padded - bytes);
    return image::decode_chunk(chunk, padded, expect, to, &sizes->pages, into, &sizes->bodies,
                               fault);
  };
  const auto answer = [sizes](Napi::Env env) {
    Napi::Array out = Napi::Array::New(env, 2);
    out.Set(uint32_t(0), num(env, sizes->pages));
    out.Set(uint32_t(1), num(env, sizes->bodies));
    return out;
  };
  return Task::start(info.Env(), work, {frame, descs, bodies}, answer);
}

}  // namespace

Napi::Object init_page_stream(Napi::Env env) {
  Napi::Object exports = Napi::Object::New(env);
  add<create_stream>(exports, "create");
  add<put_frame>(exports, "putFrame");
  add<put_bytes>(exports, "putBytes");
  add<cancel>(exports, "cancel");
  add<stream_counts>(exports, "counts");
  add<check_complete>(exports, "checkComplete");
  add<release<image::Writer>>(exports, "release");
  add<decode_frame>(exports, "decodeFrame");
  return exports;
}

}  // namespace dormouse::binding
