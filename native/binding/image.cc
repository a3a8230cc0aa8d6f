// Images by number: writers and readers live in registries, so that worker threads reach them.
#include <cstring>

#include "binding/entry.h"
#include "binding/registry.h"
#include "binding/task.h"
#include "image/image_reader.h"
#include "image/image_writer.h"

namespace dormouse::binding {
namespace {

using image::ImageReader;
using image::ImageWriter;
using Writers = Registry<image::Writer>;
using Readers = Registry<image::Reader>;
constexpr uint64_t kMostBasePages = 1u << 24;

std::shared_ptr<ImageWriter> arg_writer(const Napi::CallbackInfo& info) {
  auto writer = std::dynamic_pointer_cast<ImageWriter>(held<image::Writer>(info, 0));
  need(writer != nullptr, "the writer is of a stream");
  return writer;
}

// The concrete class is the only one ever registered.
std::shared_ptr<ImageReader> arg_reader(const Napi::CallbackInfo& info) {
  return std::static_pointer_cast<ImageReader>(held<image::Reader>(info, 0));
}

// For what no lane may be at work beside.
std::shared_ptr<LaneUse> all_lanes(const Napi::CallbackInfo& info) {
  return std::make_shared<LaneUse>(arg_u64(info, 0));
}

uint32_t lanes_field(const Napi::Object& options) {
  const uint64_t lanes = field(options, "lanes");
  need(lanes >= 1 && lanes <= kMaxLanes, "no number of lanes");
  return uint32_t(lanes);
}

std::shared_ptr<ImageReader> parent_field(const Napi::Object& options) {
  const uint64_t parent = field(options, "parent");
  if (parent == 0) return nullptr;
  return std::static_pointer_cast<ImageReader>(Readers::get().find(parent, 0));
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

image::ByteSpan span_field(const Napi::Object& from, const char* name) {
  const auto bytes = bytes_field(from, name);
  return {bytes.Data(), bytes.ByteLength()};
}

uint64_t nr_pfns_field(const Napi::Object& from) {
  const uint64_t nr_pfns = field(from, "nrPfns");
  need(nr_pfns >= 1 && nr_pfns <= image::kMaxPfns, "no size of a pfn space");
  return nr_pfns;
}

// Numbers of files.
std::vector<uint32_t> sources_field(const Napi::Object& from, const char* name,
                                    uint32_t n_sources) {
  std::vector<uint32_t> sources;
  const auto list = array_field(from, name);
  for (uint32_t i = 0; i < list.Length(); i++) {
    const uint64_t source = number_at(list, i);
    need_range(source, 1, n_sources, "files");
    sources.push_back(uint32_t(source));
  }
  return sources;
}

image::SourceSetup source_setup(const Napi::Object& from, uint32_t n_sources) {
  need(bytes_field(from, "chunkTable").ByteLength() % sizeof(image::ChunkEntry) == 0,
       "no whole chunk table");
  return {int(field(from, "fd")),      text_field(from, "name"),
          nr_pfns_field(from),         flag_field(from, "newer"),
          field(from, "chunksEnd"),    span_field(from, "chunkTable"),
          span_field(from, "digests"), span_field(from, "pageHashes"),
          flag_field(from, "deltas"),  sources_field(from, "bases", n_sources)};
}

image::LayerSetup layer_setup(const Napi::Object& from, uint32_t n_sources) {
  return {span_field(from, "map"),   field(from, "runs"),
          nr_pfns_field(from),       flag_field(from, "sparse"),
          flag_field(from, "newer"), sources_field(from, "sources", n_sources)};
}

// ({lanes, sources: [{fd, name, nrPfns, newer, chunksEnd, chunkTable, digests, pageHashes, deltas,
// bases}], layers: [{map, runs, nrPfns, sparse, newer, sources}]}) -> handle
Napi::Value open_reader(const Napi::CallbackInfo& info) {
  const auto options = arg_object(info, 0);
  image::ReaderSetup setup = {lanes_field(options), {}, {}};
  const auto sources = array_field(options, "sources"), layers = array_field(options, "layers");
  for (uint32_t i = 0; i < sources.Length(); i++)
    setup.sources.push_back(source_setup(object_at(sources, i), sources.Length()));
  for (uint32_t i = 0; i < layers.Length(); i++)
    setup.layers.push_back(layer_setup(object_at(layers, i), sources.Length()));
  need(!setup.sources.empty() && !setup.layers.empty(), "no file, or no page map");
  Fault fault;
  auto reader = ImageReader::open(setup, &fault);
  if (!reader) return failed(info.Env(), fault);
  return give<image::Reader>(info.Env(), std::move(reader));
}

// The lane of argument 1.
LaneUse lane_of(const Napi::CallbackInfo& info, const ImageReader& reader) {
  return LaneUse(arg_u64(info, 0), arg_u32(info, 1), reader.lanes());
}

uint32_t arg_chunk(const Napi::CallbackInfo& info, const ImageReader& reader, size_t i) {
  const uint32_t chunk = arg_u32(info, i);
  need_range(chunk, 1, reader.nr_chunks(), "chunks");
  return chunk;
}

// (handle, lane, chunk)
Napi::Value check_chunk(const Napi::CallbackInfo& info) {
  const auto reader = arg_reader(info);
  const LaneUse use = lane_of(info, *reader);
  Fault fault;
  if (!reader->check_chunk(arg_u32(info, 1), arg_chunk(info, *reader, 2), &fault))
    return failed(info.Env(), fault);
  return {};
}

// (handle, lane, chunk) -> {descs, bodies}, copied
Napi::Value read_chunk(const Napi::CallbackInfo& info) {
  const auto reader = arg_reader(info);
  const LaneUse use = lane_of(info, *reader);
  image::DecodedChunk chunk;
  Fault fault;
  if (!reader->read_chunk(arg_u32(info, 1), arg_chunk(info, *reader, 2), &chunk, &fault))
    return failed(info.Env(), fault);
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
  const auto reader = arg_reader(info);
  const LaneUse use(arg_u64(info, 0));
  reader->prepare_hashes();
  return {};
}

// (handle, pfns as Float64Array, out of as many pages)
Napi::Value read_pages(const Napi::CallbackInfo& info) {
  const auto reader = arg_reader(info);
  const LaneUse use(arg_u64(info, 0), reader->lanes(), reader->lanes() + 1);  // one of its own
  const auto pfns = arg_reals(info, 1);
  auto out = arg_bytes(info, 2);
  need(out.ByteLength() == pfns.ElementLength() * image::kPageBytes, "not a page for each pfn");
  Fault fault;
  for (size_t i = 0; i < pfns.ElementLength(); i++) {
    const double pfn = pfns.Data()[i];
    need(pfn >= 0 && pfn < double(reader->nr_pfns()), "a pfn that the image does not have");
    if (!reader->read_page(uint64_t(pfn), out.Data() + i * image::kPageBytes, &fault))
      return failed(info.Env(), fault);
  }
  return {};
}

// (handle, pfn) -> [class, type, chunk or -1, slot]
Napi::Value page_entry(const Napi::CallbackInfo& info) {
  const auto reader = arg_reader(info);
  const uint64_t pfn = arg_u64(info, 1);
  need_range(pfn, 1, reader->nr_pfns(), "pfns");
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
  const bool by_type = arg_bool(info, 2);
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
  add<open_reader>(exports, "openReader");
  add<release<image::Reader>>(exports, "closeReader");
  add<check_chunk>(exports, "checkChunk");
  add<read_chunk>(exports, "readChunk");
  add<chunk_entry>(exports, "chunkEntry");
  add<reader_extent>(exports, "readerExtent");
  add<prepare_hashes>(exports, "prepareHashes");
  add<read_pages>(exports, "readPages");
  add<page_entry>(exports, "pageEntry");
  add<class_runs>(exports, "classRuns");
  add<reader_counts>(exports, "readerCounts");
  add<open_images>(exports, "openImages");
  return exports;
}

}  // namespace dormouse::binding
