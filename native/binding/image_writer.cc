// Writers of images by number: they live in a registry, so that worker threads reach them.
#include "image/image_writer.h"

#include <cstring>

#include "binding/entry.h"
#include "binding/image.h"
#include "image/image_reader.h"

namespace dormouse::binding {
namespace {

using image::ImageWriter;
using Writers = Registry<image::Writer>;
using Readers = Registry<image::Reader>;
constexpr uint64_t kMostBasePages = 1u << 24;

std::shared_ptr<ImageWriter> arg_writer(const Napi::CallbackInfo& info) {
  auto writer = std::dynamic_pointer_cast<ImageWriter>(held<image::Writer>(info, 0));
  need(writer != nullptr, "the writer is of a stream");
  return writer;
}

std::shared_ptr<image::ImageReader> parent_field(const Napi::Object& options) {
  const uint64_t parent = field(options, "parent");
  if (parent == 0) return nullptr;
  return std::static_pointer_cast<image::ImageReader>(Readers::get().find(parent, 0));
}

image::Compression compression_field(const Napi::Object& options) {
  const std::string name = text_field(options, "compression");
  if (name == "lz4") return image::Compression::lz4;
  if (name == "none") return image::Compression::none;
  need(name == "auto", "no compression");
  return image::Compression::automatic;
}

image::DeltaUse deltas_field(const Napi::Object& options) {
  const auto from = object_field(options, "deltas");
  const uint64_t pages = field(from, "pages");
  if (pages == 0) return {};
  image::DeltaUse use = {
      Registry<image::BasePages>::get().find(pages, 0), uint32_t(field(from, "image")), {}};
  const auto images = array_field(from, "images");
  for (uint32_t i = 0; i < images.Length(); i++) {
    const auto image = object_at(images, i);
    const uint64_t age = field(image, "age");
    need(age >= 1 && age <= image::kMaxDeltaAge, "no age of what a delta may rest on");
    use.images.push_back({uint32_t(field(image, "image")), uint16_t(age)});
  }
  return use;
}

image::OutputPlace place_field(const Napi::Object& options) {
  return {text_field(options, "path"), flag_field(options, "direct"),
          flag_field(options, "unnamed"), flag_field(options, "nameless")};
}

// ({path, direct, unnamed, nameless, header, nrPfns, lanes, pageHashes, digests, parentPfns,
// parent, fullMap, skipUnchanged, complete, compression, deltas: {pages, image, images: [{image,
// age}]}}) -> handle; `parent` is a reader's, or 0, as `pages` may be
Napi::Value create_writer(const Napi::CallbackInfo& info) {
  const auto options = arg_object(info, 0);
  const auto header = bytes_field(options, "header");
  need(header.ByteLength() == image::kPageBytes, "no header page");
  const image::WriterSetup setup = {place_field(options),
                                    header.Data(),
                                    field(options, "nrPfns"),
                                    lanes_field(options),
                                    flag_field(options, "pageHashes"),
                                    flag_field(options, "digests"),
                                    field(options, "parentPfns"),
                                    parent_field(options),
                                    flag_field(options, "fullMap"),
                                    flag_field(options, "skipUnchanged"),
                                    flag_field(options, "complete"),
                                    compression_field(options),
                                    deltas_field(options)};
  need(setup.nr_pfns >= 1 && setup.nr_pfns <= image::kMaxPfns, "no size of a pfn space");
  need(setup.parent_pfns <= image::kMaxPfns, "no size of the parent's pfn space");
  need(setup.parent || !(setup.full_map || setup.skip_unchanged), "no parent");
  need(!setup.skip_unchanged || setup.parent->has_hashes(), "a parent without hashes");
  need(!setup.deltas.pages || setup.page_hashes, "deltas without hashes of pages");
  Fault fault;
  auto writer = ImageWriter::create(setup, &fault);
  if (!writer) return failed(info.Env(), fault);
  return give<image::Writer>(info.Env(), std::move(writer));
}

// (handle of an image or a stream, lane, descs as BigUint64Array, bodies)
Napi::Value append(const Napi::CallbackInfo& info) {
  const auto writer = held<image::Writer>(info, 0);
  const uint32_t lane = arg_u32(info, 1);
  const LaneUse use(arg_u64(info, 0), lane, writer->lanes());
  const auto descs = arg_words(info, 2);
  const auto bodies = arg_bytes(info, 3);
  need(bodies.ByteLength() % image::kPageBytes == 0, "not whole pages");
  Fault fault;
  if (!writer->append(lane, descs.Data(), uint32_t(descs.ElementLength()), bodies.Data(),
                      uint32_t(bodies.ByteLength() / image::kPageBytes), &fault) ||
      !writer->end_step(lane, &fault))
    return failed(info.Env(), fault);
  return {};
}

// (handle) -> {byClass, storedPages, storedBytes, sharedBytes}
Napi::Value writer_counts(const Napi::CallbackInfo& info) {
  const auto writer = arg_writer(info);
  Napi::Array by_class = Napi::Array::New(info.Env(), image::kClasses);
  by_class.Set(uint32_t(0), num(info.Env(), 0));
  for (uint32_t c = 1; c < image::kClasses; c++)
    by_class.Set(c, num(info.Env(), writer->count(uint8_t(c))));
  Napi::Object counts = Napi::Object::New(info.Env());
  counts.Set("byClass", by_class);
  counts.Set("storedPages", num(info.Env(), writer->stored_pages()));
  counts.Set("storedBytes", num(info.Env(), writer->stored_bytes()));
  counts.Set("sharedBytes", num(info.Env(), writer->shared_bytes()));
  return counts;
}

Napi::Value finish(const Napi::CallbackInfo& info) {
  return Task::start(info.Env(), [writer = arg_writer(info), use = all_lanes(info)](Fault* fault) {
    return writer->finish(fault);
  });
}

Napi::Value writer_chunk_table(const Napi::CallbackInfo& info) {
  const auto writer = arg_writer(info);
  const LaneUse use(arg_u64(info, 0));
  const auto& chunks = writer->chunks();
  return Napi::Buffer<uint8_t>::Copy(info.Env(), reinterpret_cast<const uint8_t*>(chunks.data()),
                                     chunks.size() * sizeof(image::ChunkEntry));
}

// (handle) -> the hashes of all pages in chunks, chunk by chunk, by slot
Napi::Value writer_page_hashes(const Napi::CallbackInfo& info) {
  const auto writer = arg_writer(info);
  const LaneUse use(arg_u64(info, 0));
  std::vector<pfn::Hash128> all;
  for (const image::ChunkNotes& notes : writer->notes())
    all.insert(all.end(), notes.page_hashes.begin(), notes.page_hashes.end());
  return Napi::Buffer<uint8_t>::Copy(info.Env(), reinterpret_cast<const uint8_t*>(all.data()),
                                     all.size() * sizeof all[0]);
}

// (handle) -> the chunks' SHA-256, one after the other
Napi::Value writer_digests(const Napi::CallbackInfo& info) {
  const auto writer = arg_writer(info);
  const LaneUse use(arg_u64(info, 0));
  std::vector<uint8_t> all;
  for (const image::ChunkNotes& notes : writer->notes())
    all.insert(all.end(), notes.digest.begin(), notes.digest.end());
  return Napi::Buffer<uint8_t>::Copy(info.Env(), all.data(), all.size());
}

// (handle, content root of the parent or zeroes) -> content root, 32 bytes
Napi::Value writer_content_root(const Napi::CallbackInfo& info) {
  const auto writer = arg_writer(info);
  const LaneUse use(arg_u64(info, 0));
  const auto before = arg_bytes(info, 1);
  image::ContentRoot root;
  need(before.ByteLength() == sizeof root.words, "no content root of 32 bytes");
  need(writer->has_content_root(), "pages or the parent's are not hashed");
  memcpy(root.words, before.Data(), sizeof root.words);
  writer->content_root(&root);
  return Napi::Buffer<uint8_t>::Copy(info.Env(), reinterpret_cast<const uint8_t*>(root.words),
                                     sizeof root.words);
}

// (handle) -> bit mask of the images that deltas rest on, by how much older they are, less one
Napi::Value writer_delta_ages(const Napi::CallbackInfo& info) {
  const auto writer = arg_writer(info);
  const LaneUse use(arg_u64(info, 0));
  return num(info.Env(), writer->delta_ages());
}

// (most pages) -> handle of what deltas of a session's images can rest on
Napi::Value create_base_pages(const Napi::CallbackInfo& info) {
  const uint64_t most = arg_u64(info, 0);
  need(most >= 1 && most <= kMostBasePages, "no number of pages");
  Fault fault;
  auto pages = image::BasePages::create(most, &fault);
  if (!pages) return failed(info.Env(), fault);
  return give<image::BasePages>(info.Env(), std::move(pages));
}

// (handle) -> {bytes, runs, more}: the next piece of the coded page map
Napi::Value encode_map(const Napi::CallbackInfo& info) {
  const auto writer = arg_writer(info);
  const LaneUse use(arg_u64(info, 0));
  std::vector<uint8_t> bytes;
  uint64_t runs = 0;
  const bool more = writer->encode_map(&bytes, &runs);
  Napi::Object piece = Napi::Object::New(info.Env());
  piece.Set("bytes", Napi::Buffer<uint8_t>::Copy(info.Env(), bytes.data(), bytes.size()));
  piece.Set("runs", num(info.Env(), runs));
  piece.Set("more", Napi::Boolean::New(info.Env(), more));
  return piece;
}

// (handle, bytes)
Napi::Value write_tail(const Napi::CallbackInfo& info) {
  const auto writer = arg_writer(info);
  const LaneUse use(arg_u64(info, 0));
  const auto bytes = arg_bytes(info, 1);
  Fault fault;
  if (!writer->write_tail(bytes.Data(), bytes.ByteLength(), &fault))
    return failed(info.Env(), fault);
  return {};
}

Napi::Value publish(const Napi::CallbackInfo& info) {
  return Task::start(info.Env(), [writer = arg_writer(info), use = all_lanes(info)](Fault* fault) {
    return writer->publish(fault);
  });
}

// (handle) -> a descriptor of the file, the caller's
Napi::Value descriptor(const Napi::CallbackInfo& info) {
  Fault fault;
  const int fd = arg_writer(info)->file().duplicate(&fault);
  if (fd < 0) return failed(info.Env(), fault);
  return num(info.Env(), uint64_t(fd));
}

// (handle, nth, errno, forEver): fault injection for tests, see OutputFile::fail_call.
Napi::Value fail_call(const Napi::CallbackInfo& info) {
  arg_writer(info)->file().fail_call(arg_u32(info, 1), int(arg_u32(info, 2)), arg_bool(info, 3));
  return {};
}

// () -> how many writers and readers are open, for tests of leaks
Napi::Value open_images(const Napi::CallbackInfo& info) {
  return num(info.Env(), Writers::get().count() + Readers::get().count());
}

}  // namespace

Napi::Object init_image(Napi::Env env) {
  Napi::Object exports = Napi::Object::New(env);
  add<create_writer>(exports, "createWriter");
  add<append>(exports, "append");
  add<writer_counts>(exports, "writerCounts");
  add<finish>(exports, "finish");
  add<writer_chunk_table>(exports, "writerChunkTable");
  add<writer_page_hashes>(exports, "writerPageHashes");
  add<writer_digests>(exports, "writerDigests");
  add<writer_content_root>(exports, "writerContentRoot");
  add<writer_delta_ages>(exports, "writerDeltaAges");
  add<create_base_pages>(exports, "createBasePages");
  add<release<image::BasePages>>(exports, "closeBasePages");
  add<encode_map>(exports, "encodeMap");
  add<write_tail>(exports, "writeTail");
  add<publish>(exports, "publish");
  add<descriptor>(exports, "descriptor");
  add<release<image::Writer>>(exports, "releaseWriter");
  add<fail_call>(exports, "failCall");
  add<open_images>(exports, "openImages");
  add_image_reader(exports);
  return exports;
}

}  // namespace dormouse::binding
