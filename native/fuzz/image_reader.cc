// The reader over an image of two files, an increment with deltas and what it lies on: chunk
// tables, page maps laid over each other, and chunks read by them. The fuzzer changes fields of a
// whole image.
#include "image/image_reader.h"

#include <sanitizer/asan_interface.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <initializer_list>
#include <map>

#include "fuzz/input.h"
#include "image/delta_chunk.h"
#include "image/encode.h"
#include "pfn/sha256.h"

namespace dormouse::pfn {

// Not OpenSSL's, which Node.js brings: a digest that fits is all that is needed.
bool sha256(const uint8_t* bytes, uint64_t n, Sha256* out, Fault*) {
  const Hash128 hash = hash128(bytes, n);
  *out = {};
  std::memcpy(out->data(), &hash, sizeof hash);
  return true;
}

}  // namespace dormouse::pfn

namespace dormouse::image {
namespace {

// A reader takes MiBs and gives them back, which the sanitizer would map anew each time: they are
// kept, by address. What nobody holds is poisoned, as are the bytes behind what somebody does.
struct Kept {
  uint64_t bytes = 0;
  bool held = false;
};
auto& kept_buffers = *new std::map<uint8_t*, Kept>;

}  // namespace

void FreeAligned::operator()(uint8_t* p) const {
  Kept& kept = kept_buffers.at(p);
  fuzz::require(kept.held, "freed twice");
  kept.held = false;
  __asan_poison_memory_region(p, kept.bytes);
}

AlignedBytes allocate_aligned(uint64_t bytes) {
  auto at = std::find_if(kept_buffers.begin(), kept_buffers.end(), [bytes](const auto& one) {
    return !one.second.held && one.second.bytes == bytes;
  });
  if (at == kept_buffers.end()) {
    auto* fresh = static_cast<uint8_t*>(std::aligned_alloc(kPageBytes, whole_pages(bytes + 1)));
    __asan_poison_memory_region(fresh, whole_pages(bytes + 1));
    at = kept_buffers.emplace(fresh, Kept{bytes, false}).first;
  }
  at->second.held = true;
  __asan_unpoison_memory_region(at->first, bytes);
  return AlignedBytes(at->first);
}

}  // namespace dormouse::image

namespace {

using namespace dormouse;
using namespace dormouse::image;
using fuzz::Input;
using fuzz::require;

constexpr uint32_t kPfns = 24;

struct Run {
  uint64_t pfn;
  uint32_t count;
  uint8_t page_class, type;
};

// One file, and one map.
struct File {
  int fd = -1;
  std::vector<std::vector<uint8_t>> chunks;
  std::vector<ChunkEntry> table;
  std::vector<pfn::Sha256> digests;
  std::vector<MapRun> map;
  std::vector<pfn::Hash128> page_hashes;
  std::vector<uint32_t> bases;
  uint64_t nr_pfns = kPfns, n_runs = 0, chunks_end = 0;
  bool sparse = false, newer = false, deltas = false;
  std::vector<uint8_t> map_bytes;
};

std::vector<uint64_t> descs_of(std::initializer_list<Run> runs) {
  std::vector<uint64_t> descs;
  for (const Run& run : runs)
    for (uint32_t i = 0; i < run.count; i++)
      descs.push_back(page_desc(run.pfn + i, run.page_class, run.type));
  return descs;
}

// What a page holds in a file of full pages, and what a delta makes of it.
void fill(uint64_t desc, bool later, uint8_t* page) {
  std::memset(page, int(desc), kPageBytes);
  if (later) page[desc % kPageBytes]++;
}

std::vector<uint8_t> chunk_of(std::initializer_list<Run> runs) {
  static BlockCoder coder(Compression::lz4);
  const std::vector<uint64_t> descs = descs_of(runs);
  std::vector<uint8_t> bodies(descs.size() * kPageBytes), out(kMaxChunkSpan);
  for (size_t i = 0; i < descs.size(); i++) fill(descs[i], false, &bodies[i * kPageBytes]);
  const auto n = uint32_t(descs.size());
  out.resize(whole_pages(encode_chunk(coder, {descs.data(), n, bodies.data(), n}, out.data())));
  return out;
}

// Deltas of pages that the image before has in that chunk from that slot on.
std::vector<uint8_t> deltas_of(std::initializer_list<Run> runs, uint32_t base_chunk, uint16_t slot,
                               std::vector<pfn::Hash128>* hashes) {
  Fault fault;
  DeltaUse use;
  use.pages = BasePages::create(64, &fault);
  use.images = {{1, 1}};
  DeltaChunk chunk(use);
  require(use.pages && chunk.allocate(), "no room");
  uint8_t page[kPageBytes];
  for (const uint64_t desc : descs_of(runs)) {
    fill(desc, false, page);
    use.pages->keep(desc, page, 1, base_chunk, slot++);
    fill(desc, true, page);
    require(chunk.add(desc, page, kPageBytes), "no delta");
  }
  hashes->insert(hashes->end(), chunk.page_hashes.begin(), chunk.page_hashes.end());
  std::vector<uint8_t> out(chunk.span());
  chunk.close(out.data());
  return out;
}

File whole_file(std::vector<std::vector<uint8_t>> chunks, std::vector<MapRun> map) {
  File file;
  file.chunks = std::move(chunks);
  file.map = std::move(map);
  file.n_runs = file.map.size();
  file.fd = memfd_create("image", MFD_CLOEXEC);
  require(file.fd >= 0, "no file");
  uint64_t at = kPageBytes;
  for (const auto& chunk : file.chunks) {
    ChunkHeader h;
    std::memcpy(&h, chunk.data(), sizeof h);
    file.table.push_back({at, uint32_t(chunk.size()), h.pages, 0, 0, 0});
    at += chunk.size();
  }
  file.chunks_end = at;
  file.digests.resize(file.table.size());
  return file;
}

// An increment over a full image, as they were before anybody changed them.
const std::vector<File>& whole() {
  static const std::vector<File> files = [] {
    std::vector<pfn::Hash128> hashes(2);
    const auto deltas = deltas_of({{4, 3, kClassData, 0}}, 0, 4, &hashes);
    File own = whole_file({chunk_of({{7, 1, kClassData, 0}, {9, 1, kClassTable, 9}}), deltas},
                          {{4, 0, 0, 0, kClassAbsent, 0, 0},
                           {3, 1, 0, 0, kClassData, 0, 0},
                           {1, 0, 0, 0, kClassData, 0, 0},
                           {1, 0, 0, 0, kClassAbsent, 0, 0},
                           {1, 0, 1, 0, kClassTable, 9, 0},
                           {14, 0, 0, 0, kClassAbsent, 0, 0}});
    own.sparse = own.deltas = true;
    own.page_hashes = hashes;
    own.bases = {1};
    File base = whole_file(
        {chunk_of({{0, 8, kClassData, 0}}), chunk_of({{10, 2, kClassTable, 1}, {8, 2, 1, 0}})},
        {{8, 0, 0, 0, kClassData, 0, 0},
         {2, 1, 2, 0, kClassData, 0, 0},
         {2, 1, 0, 0, kClassTable, 1, 0},
         {6, 0, 0, 0, kClassZero, 0, 0},
         {4, 0, 0, 0, kClassNoFrame, 15, 0},
         {1, 0, 0, 0, kClassBroken, 13, 0},
         {1, 0, 0, 0, kClassAlloc, 14, 0}});
    return std::vector<File>{own, base};
  }();
  return files;
}

template <typename T>
void change(Input* in, std::vector<T>* list) {
  if (list->empty()) return;
  auto* bytes = reinterpret_cast<uint8_t*>(list->data());
  const size_t size = list->size() * sizeof(T);
  const size_t at = in->number<uint16_t>() % size;
  const uint32_t value = in->number<uint32_t>();
  const size_t n = 1 + in->number<uint8_t>() % 4;
  std::memcpy(bytes + at, &value, n < size - at ? n : size - at);
}

void change_file(Input* in, File* file) {
  switch (in->number<uint8_t>() % 11) {
    case 0:
    case 1:
    case 2:
      return change(in, &file->map);
    case 3:
      return change(in, &file->table);
    case 4:
    case 5:
      if (!file->chunks.empty())
        change(in, &file->chunks[in->number<uint8_t>() % file->chunks.size()]);
      return;
    case 6:
      file->nr_pfns = (in->number<uint64_t>() & 0x1FFFFFFFF) >> in->number<uint8_t>() % 33;
      return;
    case 7:
      file->n_runs = in->number<uint16_t>();
      return;
    case 8:
      if (in->number<uint8_t>() % 2)
        file->map.push_back(file->map.empty() ? MapRun{} : file->map.back());
      else if (!file->map.empty())
        file->map.erase(file->map.begin() + in->number<uint8_t>() % file->map.size());
      file->n_runs = file->map.size();
      return;
    case 9: {
      const uint8_t what = in->number<uint8_t>();
      if (what % 4 == 0) return change(in, &file->page_hashes);
      if (what % 4 == 1) file->deltas ^= true;
      if (what % 4 == 2) file->page_hashes.clear();
      if (what % 4 == 3) file->bases.assign(what / 4 % 4, what / 16 % 2);
      return;
    }
    default:
      file->newer ^= true;
      file->sparse ^= in->number<uint8_t>() & 1;
      file->chunks_end += in->number<uint8_t>() % 4 ? 0 : kPageBytes;
  }
}

// The file as it is now, and what follows from that.
void put(File* file, bool seal, bool with_digests) {
  uint64_t at = kPageBytes;
  for (size_t i = 0; i < file->chunks.size(); i++) {
    const auto& chunk = file->chunks[i];
    require(pwrite(file->fd, chunk.data(), chunk.size(), off_t(at)) == ssize_t(chunk.size()),
            "no room");
    at += chunk.size();
    const pfn::Hash128 hash = pfn::hash128(chunk.data(), chunk.size());
    if (seal) file->table[i].hash_low = hash.low, file->table[i].hash_high = hash.high;
    Fault none;
    pfn::sha256(chunk.data(), chunk.size(), &file->digests[i], &none);
  }
  if (!with_digests) file->digests.clear();
  const auto raw = uint32_t(file->map.size() * sizeof(MapRun));
  const MapBlockHeader header = {raw | kStoredFlag, raw};
  file->map_bytes.resize(sizeof header + raw);
  std::memcpy(file->map_bytes.data(), &header, sizeof header);
  if (raw) std::memcpy(file->map_bytes.data() + sizeof header, file->map.data(), raw);
}

template <typename T>
ByteSpan span(const std::vector<T>& of) {
  return {reinterpret_cast<const uint8_t*>(of.data()), of.size() * sizeof(T)};
}

bool is_known(const Fault& fault) {
  for (const char* code : {"IMAGE_DAMAGED", "IMAGE_INCOMPATIBLE"})
    if (fault && std::strcmp(fault.code, code) == 0) return true;
  return false;
}

// Every page that counts and was decoded reads as it was decoded, and each once.
void check_chunk(ImageReader* reader, uint32_t chunk, const DecodedChunk& got,
                 std::vector<uint64_t>* given) {
  uint8_t page[kPageBytes];
  require(got.n_pages <= kMaxChunkPages && got.n_bodies == got.n_pages, "impossible counts");
  for (uint32_t slot = 0; slot < got.n_pages; slot++) {
    const uint64_t pfn = desc_pfn(got.descs[slot]);
    if (!reader->is_current(chunk, slot, pfn)) continue;
    given->push_back(pfn);
    require(pfn < reader->nr_pfns(), "a page beyond the image counts");
    Fault fault;
    require(reader->read_page(pfn, page, &fault), "a page of a good chunk cannot be read");
    require(std::memcmp(page, got.bodies + uint64_t(slot) * kPageBytes, kPageBytes) == 0,
            "a page reads as another");
  }
}

// Each page with a body is given by one chunk, and by one alone.
void check_all_given(const ImageReader& reader, const std::vector<uint64_t>& given) {
  size_t bodies = 0;
  const auto& runs = reader.map().runs();
  for (size_t i = 0; i < runs.size(); i++)
    if (class_has_body(runs[i].page_class)) bodies += reader.map().count_of(i);
  require(given.size() == bodies, "a page was not given, or twice");
}

void check_blanks(const ImageReader& reader) {
  uint64_t next = 0;
  for (const BlankPages& blank : reader.blanks()) {
    require(blank.first >= next && blank.count > 0, "blanks overlap");
    require(!class_has_body(blank.page_class), "a blank page with a body");
    next = blank.first + blank.count;
  }
  require(next <= reader.nr_pfns(), "a blank page beyond the image");
}

void mark_all(const ImageReader& reader) {
  std::vector<bool> chunks(reader.nr_chunks());
  const auto& runs = reader.map().runs();
  for (size_t i = 0; i < runs.size(); i++)
    reader.mark_chunks(runs[i].first, reader.map().count_of(i), &chunks);
  require(chunks.size() == reader.nr_chunks(), "chunks were added");
}

void use(ImageReader* reader) {
  Fault unfollowed;
  if (!reader->follow_deltas(&unfollowed)) {
    require(is_known(unfollowed), "not followed without saying why");
    return;
  }
  mark_all(*reader);
  bool all = true;
  std::vector<uint64_t> given;
  for (uint32_t chunk = 0; chunk < reader->nr_chunks(); chunk++) {
    DecodedChunk got;
    Fault fault;
    if (reader->read_chunk(0, chunk, &got, &fault)) {
      check_chunk(reader, chunk, got, &given);
      continue;
    }
    require(is_known(fault), "refused without saying why");
    all = false;
  }
  if (all) check_all_given(*reader, given);
  check_blanks(*reader);
  uint8_t page[kPageBytes];
  for (uint64_t pfn = 0; pfn < reader->nr_pfns() && pfn < 2 * kPfns; pfn++) {
    Fault fault;
    if (!reader->read_page(pfn, page, &fault)) require(is_known(fault), "unreadable without why");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  Input in(data, bytes);
  std::vector<File> files = whole();
  const uint8_t mode = in.number<uint8_t>();
  if (mode & 1) files.erase(files.begin());
  for (int i = 0; i < 64 && in.left() > 0; i++)
    change_file(&in, &files[in.number<uint8_t>() % files.size()]);
  ReaderSetup setup = {1, {}, {}};
  for (uint32_t i = 0; i < files.size(); i++) {
    File& file = files[i];
    put(&file, (mode & 6) != 6, mode & 8);
    setup.sources.push_back({file.fd, "file", file.nr_pfns, file.newer, file.chunks_end,
                             span(file.table), span(file.digests), span(file.page_hashes),
                             file.deltas, files.size() > 1 ? file.bases : std::vector<uint32_t>()});
    std::vector<uint32_t> sources = {i};
    if (!file.sparse && i + 1 < files.size()) sources.push_back(i + 1);
    setup.layers.push_back(
        {span(file.map_bytes), file.n_runs, file.nr_pfns, file.sparse, file.newer, sources});
  }
  Fault fault;
  const auto reader = ImageReader::open(setup, &fault);
  require(reader ? true : is_known(fault), "refused without saying why");
  if (reader) use(reader.get());
  return 0;
}
