// Images by number: writers and readers live in registries, so that worker threads reach them.
#include <functional>

#include "binding/napi_util.h"
#include "binding/object_util.h"
#include "binding/registry.h"
#include "image/image_reader.h"
#include "image/image_writer.h"

namespace dormouse::binding {
namespace {

using image::ImageReader;
using image::ImageWriter;
using Writers = Registry<image::Writer>;
using Readers = Registry<image::Reader>;

struct Bytes {
  const uint8_t* data;
  uint64_t size;
};

Bytes arg_bytes(const Napi::CallbackInfo& info, size_t i) {
  DM_ASSERT(info.Length() > i && info[i].IsTypedArray());
  const auto array = info[i].As<Napi::TypedArray>();
  void* data = nullptr;
  DM_ASSERT(napi_get_typedarray_info(info.Env(), array, nullptr, nullptr, &data, nullptr,
                                     nullptr) == napi_ok);
  return {static_cast<const uint8_t*>(data), array.ByteLength()};
}

std::shared_ptr<ImageWriter> arg_writer(const Napi::CallbackInfo& info) {
  auto writer = std::dynamic_pointer_cast<ImageWriter>(Writers::get().find(arg_u32(info, 0)));
  DM_ASSERT(writer);
  return writer;
}

// The concrete class is the only one ever registered.
std::shared_ptr<ImageReader> arg_reader(const Napi::CallbackInfo& info) {
  auto reader = std::static_pointer_cast<ImageReader>(Readers::get().find(arg_u32(info, 0)));
  DM_ASSERT(reader);
  return reader;
}

// A blocking call off the event loop, as a promise.
class Task final : public Napi::AsyncWorker {
 public:
  using Work = std::function<bool(Fault*)>;
  static Napi::Value start(Napi::Env env, Work work) {
    auto* task = new Task(env, std::move(work));
    task->Queue();
    return task->deferred_.Promise();
  }

 private:
  Task(Napi::Env env, Work work) : Napi::AsyncWorker(env), deferred_(env), work_(std::move(work)) {}
  void Execute() override { done_ = work_(&fault_); }
  void OnOK() override {
    if (done_) return deferred_.Resolve(Env().Undefined());
    throw_fault(Env(), fault_);
    deferred_.Reject(Env().GetAndClearPendingException().Value());
  }

  Napi::Promise::Deferred deferred_;
  Work work_;
  Fault fault_;
  bool done_ = false;
};

// ({path, header, nrPfns, lanes, direct, unnamed, pageHashes, digests, parentPfns, parent, fullMap,
// skipUnchanged, complete}) -> handle; `parent` is a reader's, or 0
Napi::Value create_writer(const Napi::CallbackInfo& info) {
  const auto options = info[0].As<Napi::Object>();
  const std::string path = options.Get("path").As<Napi::String>();
  const auto header = options.Get("header").As<Napi::Buffer<uint8_t>>();
  DM_ASSERT(header.Length() == image::kPageBytes);
  auto flag = [&](const char* name) { return options.Get(name).ToBoolean().Value(); };
  const uint32_t parent = uint32_t(field(options, "parent"));
  const image::WriterSetup setup = {
      path,
      header.Data(),
      field(options, "nrPfns"),
      uint32_t(field(options, "lanes")),
      flag("direct"),
      flag("unnamed"),
      flag("pageHashes"),
      flag("digests"),
      field(options, "parentPfns"),
      parent ? std::static_pointer_cast<ImageReader>(Readers::get().find(parent)) : nullptr,
      flag("fullMap"),
      flag("skipUnchanged"),
      flag("complete")};
  DM_ASSERT(setup.nr_pfns >= 1 && setup.nr_pfns <= image::kMaxPfns && setup.lanes >= 1);
  DM_ASSERT(setup.parent || !(setup.full_map || setup.skip_unchanged));
  Fault fault;
  auto writer = ImageWriter::create(setup, &fault);
  if (writer) return num(info.Env(), Writers::get().add(std::move(writer)));
  throw_fault(info.Env(), fault);
  return {};
}

// (handle of an image or a stream, lane, descs as BigUint64Array, bodies)
Napi::Value append(const Napi::CallbackInfo& info) {
  const auto writer = Writers::get().find(arg_u32(info, 0));
  DM_ASSERT(writer);
  const Bytes descs = arg_bytes(info, 2), bodies = arg_bytes(info, 3);
  DM_ASSERT(descs.size % 8 == 0 && bodies.size % image::kPageBytes == 0);
  Fault fault;
  if (!writer->append(arg_u32(info, 1), reinterpret_cast<const uint64_t*>(descs.data),
                      uint32_t(descs.size / 8), bodies.data,
                      uint32_t(bodies.size / image::kPageBytes), &fault) ||
      !writer->end_step(arg_u32(info, 1), &fault))
    throw_fault(info.Env(), fault);
  return {};
}

// (handle) -> {byClass, storedPages, storedBytes}
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
  return counts;
}

Napi::Value finish(const Napi::CallbackInfo& info) {
  return Task::start(info.Env(),
                     [writer = arg_writer(info)](Fault* fault) { return writer->finish(fault); });
}

Napi::Value writer_chunk_table(const Napi::CallbackInfo& info) {
  const auto writer = arg_writer(info);
  const auto& chunks = writer->chunks();
  return Napi::Buffer<uint8_t>::Copy(info.Env(), reinterpret_cast<const uint8_t*>(chunks.data()),
                                     chunks.size() * sizeof(image::ChunkEntry));
}

// (handle) -> the hashes of all pages in chunks, chunk by chunk, by slot
Napi::Value writer_page_hashes(const Napi::CallbackInfo& info) {
  const auto writer = arg_writer(info);
  std::vector<pfn::Hash128> all;
  for (const image::ChunkNotes& notes : writer->notes())
    all.insert(all.end(), notes.page_hashes.begin(), notes.page_hashes.end());
  return Napi::Buffer<uint8_t>::Copy(info.Env(), reinterpret_cast<const uint8_t*>(all.data()),
                                     all.size() * sizeof all[0]);
}

// (handle) -> the chunks' SHA-256, one after the other
Napi::Value writer_digests(const Napi::CallbackInfo& info) {
  const auto writer = arg_writer(info);
  std::vector<uint8_t> all;
  for (const image::ChunkNotes& notes : writer->notes())
    all.insert(all.end(), notes.digest.begin(), notes.digest.end());
  return Napi::Buffer<uint8_t>::Copy(info.Env(), all.data(), all.size());
}

// (handle, content root of the parent or zeroes) -> content root, 32 bytes
Napi::Value writer_content_root(const Napi::CallbackInfo& info) {
  const Bytes before = arg_bytes(info, 1);
  image::ContentRoot root;
  DM_ASSERT(before.size == sizeof root.words);
  memcpy(root.words, before.data, sizeof root.words);
  arg_writer(info)->content_root(&root);
  return Napi::Buffer<uint8_t>::Copy(info.Env(), reinterpret_cast<const uint8_t*>(root.words),
                                     sizeof root.words);
}

// (handle) -> {bytes, runs, more}: the next piece of the coded page map
Napi::Value encode_map(const Napi::CallbackInfo& info) {
  std::vector<uint8_t> bytes;
  uint64_t runs = 0;
  const bool more = arg_writer(info)->encode_map(&bytes, &runs);
  Napi::Object piece = Napi::Object::New(info.Env());
  piece.Set("bytes", Napi::Buffer<uint8_t>::Copy(info.Env(), bytes.data(), bytes.size()));
  piece.Set("runs", num(info.Env(), runs));
  piece.Set("more", Napi::Boolean::New(info.Env(), more));
  return piece;
}

// (handle, bytes)
Napi::Value write_tail(const Napi::CallbackInfo& info) {
  const Bytes bytes = arg_bytes(info, 1);
  Fault fault;
  if (!arg_writer(info)->write_tail(bytes.data, bytes.size, &fault)) throw_fault(info.Env(), fault);
  return {};
}

Napi::Value publish(const Napi::CallbackInfo& info) {
  return Task::start(info.Env(),
                     [writer = arg_writer(info)](Fault* fault) { return writer->publish(fault); });
}

// (handle): the file goes with the last user of the writer.
Napi::Value release_writer(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), Writers::get().release(arg_u32(info, 0)));
}

// (handle, nth, errno, forEver): fault injection for tests, see OutputFile::fail_call.
Napi::Value fail_call(const Napi::CallbackInfo& info) {
  arg_writer(info)->file().fail_call(arg_u32(info, 1), int(arg_u32(info, 2)), info[3].ToBoolean());
  return {};
}

image::ByteSpan get_bytes(const Napi::Object& from, const char* name) {
  const auto bytes = from.Get(name).As<Napi::Buffer<uint8_t>>();
  return {bytes.Data(), bytes.Length()};
}

image::SourceSetup source_setup(const Napi::Object& from) {
  return {int(field(from, "fd")),     from.Get("name").As<Napi::String>(),
          field(from, "nrPfns"),      from.Get("newer").ToBoolean(),
          field(from, "chunksEnd"),   get_bytes(from, "chunkTable"),
          get_bytes(from, "digests"), get_bytes(from, "pageHashes")};
}

image::LayerSetup layer_setup(const Napi::Object& from) {
  image::LayerSetup layer = {get_bytes(from, "map"),        field(from, "runs"),
                             field(from, "nrPfns"),         from.Get("sparse").ToBoolean(),
                             from.Get("newer").ToBoolean(), {}};
  const auto sources = from.Get("sources").As<Napi::Array>();
  for (uint32_t i = 0; i < sources.Length(); i++)
    layer.sources.push_back(sources.Get(i).As<Napi::Number>().Uint32Value());
  return layer;
}

// ({lanes, sources: [{fd, name, nrPfns, newer, chunksEnd, chunkTable, digests, pageHashes}],
// layers: [{map, runs, nrPfns, sparse, newer, sources}]}) -> handle
Napi::Value open_reader(const Napi::CallbackInfo& info) {
  const auto options = info[0].As<Napi::Object>();
  image::ReaderSetup setup = {uint32_t(field(options, "lanes")), {}, {}};
  const auto sources = options.Get("sources").As<Napi::Array>();
  const auto layers = options.Get("layers").As<Napi::Array>();
  for (uint32_t i = 0; i < sources.Length(); i++)
    setup.sources.push_back(source_setup(sources.Get(i).As<Napi::Object>()));
  for (uint32_t i = 0; i < layers.Length(); i++)
    setup.layers.push_back(layer_setup(layers.Get(i).As<Napi::Object>()));
  Fault fault;
  auto reader = ImageReader::open(setup, &fault);
  if (reader) return num(info.Env(), Readers::get().add(std::move(reader)));
  throw_fault(info.Env(), fault);
  return {};
}

Napi::Value close_reader(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), Readers::get().release(arg_u32(info, 0)));
}

uint32_t arg_lane(const Napi::CallbackInfo& info, const ImageReader& reader) {
  const uint32_t lane = arg_u32(info, 1);
  DM_ASSERT(lane < reader.lanes());
  return lane;
}

uint32_t arg_chunk(const Napi::CallbackInfo& info, const ImageReader& reader, size_t i) {
  const uint32_t chunk = arg_u32(info, i);
  DM_ASSERT(chunk < reader.nr_chunks());
  return chunk;
}

// (handle, lane, chunk)
Napi::Value check_chunk(const Napi::CallbackInfo& info) {
  const auto reader = arg_reader(info);
  Fault fault;
  if (!reader->check_chunk(arg_lane(info, *reader), arg_chunk(info, *reader, 2), &fault))
    throw_fault(info.Env(), fault);
  return {};
}

// (handle, lane, chunk) -> {descs, bodies}, copied
Napi::Value read_chunk(const Napi::CallbackInfo& info) {
  const auto reader = arg_reader(info);
  image::DecodedChunk chunk;
  Fault fault;
  if (!reader->read_chunk(arg_lane(info, *reader), arg_chunk(info, *reader, 2), &chunk, &fault)) {
    throw_fault(info.Env(), fault);
    return {};
  }
  auto descs = Napi::BigUint64Array::New(info.Env(), chunk.n_pages);
  for (uint32_t i = 0; i < chunk.n_pages; i++) descs[i] = chunk.descs[i];
  Napi::Object copy = Napi::Object::New(info.Env());
  copy.Set("descs", descs);
  copy.Set("bodies", Napi::Buffer<uint8_t>::Copy(info.Env(), chunk.bodies,
                                                 uint64_t(chunk.n_bodies) * image::kPageBytes));
  return copy;
}

// (handle, chunk) -> {source, chunk, offset, span, pages}
Napi::Value chunk_entry(const Napi::CallbackInfo& info) {
  const auto reader = arg_reader(info);
  const uint32_t chunk = arg_chunk(info, *reader, 1);
  const image::ChunkEntry& entry = reader->entry(chunk);
  Napi::Object copy = Napi::Object::New(info.Env());
  copy.Set("source", num(info.Env(), reader->place(chunk).source));
  copy.Set("chunk", num(info.Env(), reader->place(chunk).chunk));
  copy.Set("offset", num(info.Env(), entry.offset));
  copy.Set("span", num(info.Env(), entry.span));
  copy.Set("pages", num(info.Env(), entry.pages));
  return copy;
}

// (handle) -> {chunks, units, usedSources: boolean[]}
Napi::Value reader_extent(const Napi::CallbackInfo& info) {
  const auto reader = arg_reader(info);
  Napi::Object extent = Napi::Object::New(info.Env());
  extent.Set("chunks", num(info.Env(), reader->nr_chunks()));
  extent.Set("units", num(info.Env(), reader->nr_units()));
  Napi::Array used = Napi::Array::New(info.Env());
  for (const bool is_used : reader->used_sources())
    used.Set(used.Length(), Napi::Boolean::New(info.Env(), is_used));
  extent.Set("usedSources", used);
  return extent;
}

// (handle): room for the hashes of pages whose file has none
Napi::Value prepare_hashes(const Napi::CallbackInfo& info) {
  Fault fault;
  if (!arg_reader(info)->prepare_hashes(&fault)) throw_fault(info.Env(), fault);
  return {};
}

// (handle, pfns as Float64Array, out of as many pages)
Napi::Value read_pages(const Napi::CallbackInfo& info) {
  const auto reader = arg_reader(info);
  const auto pfns = info[1].As<Napi::Float64Array>();
  auto out = info[2].As<Napi::Buffer<uint8_t>>();
  DM_ASSERT(out.Length() == pfns.ElementLength() * image::kPageBytes);
  Fault fault;
  for (size_t i = 0; i < pfns.ElementLength(); i++) {
    DM_ASSERT(uint64_t(pfns[i]) < reader->nr_pfns());
    if (reader->read_page(uint64_t(pfns[i]), out.Data() + i * image::kPageBytes, &fault)) continue;
    throw_fault(info.Env(), fault);
    break;
  }
  return {};
}

// (handle, pfn) -> [class, type, chunk or -1, slot]
Napi::Value page_entry(const Napi::CallbackInfo& info) {
  const auto reader = arg_reader(info);
  const uint64_t pfn = arg_u64(info, 1);
  DM_ASSERT(pfn < reader->nr_pfns());
  const image::PlacedRun& run = reader->map().runs()[reader->map().find(pfn)];
  Napi::Array entry = Napi::Array::New(info.Env(), 4);
  entry.Set(uint32_t(0), num(info.Env(), run.page_class));
  entry.Set(uint32_t(1), num(info.Env(), run.type));
  const bool in_chunk = run.chunk != image::kNoChunk;
  entry.Set(uint32_t(2), Napi::Number::New(info.Env(), in_chunk ? double(run.chunk) : -1));
  entry.Set(uint32_t(3), num(info.Env(), in_chunk ? run.slot + (pfn - run.first) : 0));
  return entry;
}

// (handle, bit mask of classes, whether runs of another type stay apart) -> Float64Array of
// [first, count, type]: pages of these classes by ascending pfn. The type is that of the first
// page.
Napi::Value class_runs(const Napi::CallbackInfo& info) {
  const auto reader = arg_reader(info);
  const uint32_t mask = arg_u32(info, 1);
  const bool by_type = info[2].ToBoolean();
  const auto& map = reader->map();
  std::vector<double> found;
  for (size_t i = 0; i < map.runs().size(); i++) {
    const image::PlacedRun& run = map.runs()[i];
    if (!(mask >> run.page_class & 1)) continue;
    const double first = run.first, count = double(map.end_of(i) - run.first);
    const size_t n = found.size();
    if (n && found[n - 3] + found[n - 2] == first && (!by_type || found[n - 1] == run.type))
      found[n - 2] += count;
    else
      found.insert(found.end(), {first, count, double(run.type)});
  }
  auto runs = Napi::Float64Array::New(info.Env(), found.size());
  for (size_t i = 0; i < found.size(); i++) runs[i] = found[i];
  return runs;
}

// () -> how many writers and readers are open, for tests of leaks
Napi::Value open_images(const Napi::CallbackInfo& info) {
  return num(info.Env(), Writers::get().count() + Readers::get().count());
}

Napi::Array by_class(Napi::Env env, const uint64_t counts[image::kClasses]) {
  Napi::Array out = Napi::Array::New(env, image::kClasses);
  for (uint32_t c = 0; c < image::kClasses; c++) out.Set(c, num(env, counts[c]));
  return out;
}

// (handle) -> {own, all}: pages by class, as the image's own file has them and as they are
Napi::Value reader_counts(const Napi::CallbackInfo& info) {
  const auto reader = arg_reader(info);
  const auto& map = reader->map();
  uint64_t all[image::kClasses] = {};
  for (size_t i = 0; i < map.runs().size(); i++) all[map.runs()[i].page_class] += map.count_of(i);
  Napi::Object counts = Napi::Object::New(info.Env());
  counts.Set("own", by_class(info.Env(), map.own_counts()));
  counts.Set("all", by_class(info.Env(), all));
  return counts;
}

}  // namespace

Napi::Object init_image(Napi::Env env) {
  Napi::Object exports = Napi::Object::New(env);
  auto add = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    exports.Set(name, Napi::Function::New(env, function, name));
  };
  add("createWriter", create_writer);
  add("append", append);
  add("writerCounts", writer_counts);
  add("finish", finish);
  add("writerChunkTable", writer_chunk_table);
  add("writerPageHashes", writer_page_hashes);
  add("writerDigests", writer_digests);
  add("writerContentRoot", writer_content_root);
  add("encodeMap", encode_map);
  add("writeTail", write_tail);
  add("publish", publish);
  add("releaseWriter", release_writer);
  add("failCall", fail_call);
  add("openReader", open_reader);
  add("closeReader", close_reader);
  add("checkChunk", check_chunk);
  add("readChunk", read_chunk);
  add("chunkEntry", chunk_entry);
  add("readerExtent", reader_extent);
  add("prepareHashes", prepare_hashes);
  add("readPages", read_pages);
  add("pageEntry", page_entry);
  add("classRuns", class_runs);
  add("readerCounts", reader_counts);
  add("openImages", open_images);
  return exports;
}

}  // namespace dormouse::binding
