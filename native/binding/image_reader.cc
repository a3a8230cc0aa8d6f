// Readers of images by number: they live in a registry, so that worker threads reach them.
#include "binding/entry.h"
#include "binding/image.h"

namespace dormouse::binding {
namespace {

using image::ImageReader;

// The concrete class is the only one ever registered.
std::shared_ptr<ImageReader> arg_reader(const Napi::CallbackInfo& info) {
  return std::static_pointer_cast<ImageReader>(held<image::Reader>(info, 0));
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

// (handle), before chunks are read
Napi::Value follow_deltas(const Napi::CallbackInfo& info) {
  return Task::start(info.Env(), [reader = arg_reader(info), use = all_lanes(info)](Fault* fault) {
    return reader->follow_deltas(fault);
  });
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

void add_image_reader(Napi::Object exports) {
  add<open_reader>(exports, "openReader");
  add<release<image::Reader>>(exports, "closeReader");
  add<follow_deltas>(exports, "followDeltas");
  add<check_chunk>(exports, "checkChunk");
  add<read_chunk>(exports, "readChunk");
  add<chunk_entry>(exports, "chunkEntry");
  add<reader_extent>(exports, "readerExtent");
  add<prepare_hashes>(exports, "prepareHashes");
  add<read_pages>(exports, "readPages");
  add<page_entry>(exports, "pageEntry");
  add<class_runs>(exports, "classRuns");
  add<reader_counts>(exports, "readerCounts");
}

}  // namespace dormouse::binding
