#include "image/image_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>

#include "image/content_root.h"
#include "pfn/page_scan.h"

namespace dormouse::image {

namespace {

constexpr uint64_t kMostBlanks = 1u << 16;  // pages without a body in one unit of work

template <typename T>
bool copy_table(const ByteSpan& from, uint64_t entries, std::vector<T>* to) {
  if (from.size != entries * sizeof(T)) return false;
  to->resize(entries);
  if (entries) memcpy(static_cast<void*>(to->data()), from.data, from.size);
  return true;
}

}  // namespace

std::shared_ptr<ImageReader> ImageReader::open(const ReaderSetup& setup, Fault* fault) {
  std::shared_ptr<ImageReader> reader(new ImageReader());
  reader->sources_.reserve(setup.sources.size());
  for (const SourceSetup& source : setup.sources)
    if (!reader->add_source(source, fault)) return nullptr;
  if (!reader->lay_maps(setup, fault)) return nullptr;
  reader->list_chunks();
  reader->list_blanks();
  reader->lanes_.resize(setup.lanes);
  reader->page_lanes_.resize(std::min<size_t>(kPageLanes, setup.sources.size() + 1));
  return reader;
}

ImageReader::~ImageReader() {
  for (const Source& source : sources_)
    if (source.fd >= 0) close(source.fd);
}

bool ImageReader::add_source(const SourceSetup& setup, Fault* fault) {
  Source& source = sources_.emplace_back();
  source.name = setup.name;
  source.nr_pfns = setup.nr_pfns;
  source.newer = setup.newer;
  source.deltas = setup.deltas;
  source.bases = setup.bases;
  copy_table(setup.chunk_table, setup.chunk_table.size / sizeof(ChunkEntry), &source.chunks);
  if (!check_table(source, setup.chunks_end, fault)) return false;
  if (!take_notes(setup, &source, fault)) return false;
  source.fd = fcntl(setup.fd, F_DUPFD_CLOEXEC, 3);
  if (source.fd >= 0) return true;
  fault->sys_errno = errno;
  return fault->raise("IMAGE_READ_FAILED", source.name + ": " + strerror(errno));
}

// The chunks' spans must tile the file from the first page to chunks_end.
bool ImageReader::check_table(const Source& source, uint64_t chunks_end, Fault* fault) const {
  const auto& chunks = source.chunks;
  std::vector<uint32_t> order(chunks.size());
  for (uint32_t i = 0; i < order.size(); i++) order[i] = i;
  std::sort(order.begin(), order.end(),
            [&](uint32_t a, uint32_t b) { return chunks[a].offset < chunks[b].offset; });
  uint64_t at = kPageBytes;
  for (uint32_t i : order) {
    const ChunkEntry& c = chunks[i];
    fault->chunk = i;
    fault->offset = c.offset;
    const bool sane = c.offset == at && c.span >= kPageBytes && c.span <= kMaxChunkSpan &&
                      c.span % kPageBytes == 0 && c.pages >= 1 && c.pages <= kMaxChunkBodies &&
                      (c.reserved == 0 || source.newer);
    if (!sane) return fault->raise("IMAGE_DAMAGED", "chunk table: an entry is out of place");
    at += c.span;
  }
  fault->chunk = fault->offset = Fault::kNowhere;
  if (at == chunks_end) return true;
  return fault->raise("IMAGE_DAMAGED", "chunk table: its chunks do not make up the image");
}

bool ImageReader::take_notes(const SourceSetup& setup, Source* source, Fault* fault) const {
  uint64_t pages = 0;
  source->first_page.reserve(source->chunks.size());
  for (const ChunkEntry& c : source->chunks) {
    source->first_page.push_back(pages);
    pages += c.pages;
  }
  const bool fit =
      (setup.digests.size == 0 ||
       copy_table(setup.digests, source->chunks.size(), &source->digests)) &&
      (setup.page_hashes.size == 0 || copy_table(setup.page_hashes, pages, &source->page_hashes));
  source->hashes_stored = !source->page_hashes.empty();
  if (source->deltas && !source->hashes_stored && pages > 0)
    return fault->raise("IMAGE_DAMAGED", source->name + ": has deltas but no page hashes");
  return fit || fault->raise("IMAGE_DAMAGED", "a region is of another size than the chunk table");
}

// Neighbours are laid over each other first, so that a long chain costs no more than its runs.
bool ImageReader::lay_maps(const ReaderSetup& setup, Fault* fault) {
  std::vector<MapSource> all;
  uint32_t first = 0;
  for (const Source& source : sources_) {
    all.push_back({first, &source.chunks});
    first += uint32_t(source.chunks.size());
  }
  std::vector<ReaderMap> maps(setup.layers.size());
  for (size_t i = 0; i < maps.size(); i++) {
    const LayerSetup& layer = setup.layers[i];
    std::vector<MapSource> sources;
    for (const uint32_t source : layer.sources) sources.push_back(all[source]);
    const MapClaims claims = {layer.n_runs, layer.nr_pfns, layer.sparse, layer.newer, &sources};
    if (!maps[i].decode(layer.map.data, layer.map.size, claims, fault)) return false;
    const uint64_t below = i + 1 < maps.size() ? setup.layers[i + 1].nr_pfns : 0;
    if (!maps[i].rests_on(below, fault)) return false;
  }
  for (size_t step = 1; step < maps.size(); step *= 2)
    for (size_t i = 0; i + step < maps.size(); i += 2 * step) {
      maps[i].lay_over(maps[i + step]);
      maps[i + step] = ReaderMap();
    }
  map_ = std::move(maps[0]);
  return true;
}

// Numbers the chunks anew: all of the image's own file, and of the others those that are sought.
void ImageReader::list_chunks() {
  uint32_t total = 0;
  for (const Source& source : sources_) total += uint32_t(source.chunks.size());
  std::vector<bool> sought(total);
  for (const PlacedRun& run : map_.runs())
    if (run.chunk != kNoChunk) sought[run.chunk] = true;
  std::vector<uint32_t> renumbered(total, kNoChunk);
  uint32_t number = 0;
  for (uint32_t s = 0; s < sources_.size(); s++)
    for (uint32_t c = 0; c < sources_[s].chunks.size(); c++, number++) {
      if (s != 0 && !sought[number]) continue;
      renumbered[number] = uint32_t(places_.size());
      places_.push_back({s, c});
    }
  current_.resize(places_.size());
  for (size_t i = 0; i < map_.runs().size(); i++) {
    PlacedRun& run = map_.runs()[i];
    if (run.chunk == kNoChunk) continue;
    run.chunk = renumbered[run.chunk];
    current_[run.chunk] += uint32_t(map_.count_of(i));
  }
}

void ImageReader::list_blanks() {
  for (size_t i = 0; i < map_.runs().size(); i++) {
    const PlacedRun& run = map_.runs()[i];
    if (run.chunk != kNoChunk || run.page_class == kClassNoFrame) continue;
    for (uint64_t first = run.first; first < map_.end_of(i); first += kMostBlanks)
      blanks_.push_back(
          {first, std::min(kMostBlanks, map_.end_of(i) - first), run.page_class, run.type});
  }
}

std::vector<bool> ImageReader::used_sources() const {
  std::vector<bool> used(sources_.size());
  // All of the image's own file, and what is sought of others; deltas that were followed add
  // nothing.
  for (size_t i = 0; i < places_.size(); i++)
    if (places_[i].source == 0 || current_[i] > 0) used[places_[i].source] = true;
  std::vector<bool> with_bases = used;
  for (size_t s = 0; s < sources_.size(); s++)
    for (const uint32_t base : sources_[s].bases)
      if (used[s] && base != 0) with_bases[base] = true;
  return with_bases;
}

// Names the pages that go with the chunk: the first runs of them and how many in all.
bool ImageReader::damaged(uint32_t chunk, const std::string& what, Fault* fault) const {
  std::string pfns;
  uint32_t named = 0, left_out = 0;
  const auto& runs = map_.runs();
  for (size_t i = 0; i < runs.size(); i++) {
    if (runs[i].chunk != chunk) continue;
    if (++named > 4) {
      left_out++;
      continue;
    }
    const uint64_t first = runs[i].first, last = map_.end_of(i) - 1;
    if (named == 1) fault->pfn = first;
    pfns += (pfns.empty() ? "" : ", ") + std::to_string(first);
    if (last != first) pfns += "-" + std::to_string(last);
  }
  if (left_out) pfns += " and " + std::to_string(left_out) + " more runs";
  pfns += resting_pfns(chunk, !pfns.empty(), fault);
  if (pfns.empty()) pfns = "none that count";
  const Place& where = places_[chunk];
  const std::string file = where.source == 0 ? "" : sources_[where.source].name + ": ";
  fault->chunk = where.chunk;
  fault->offset = entry(chunk).offset;
  return fault->raise("IMAGE_DAMAGED", file + "chunk " + std::to_string(where.chunk) +
                                           " at offset " + std::to_string(fault->offset) +
                                           " (pfns " + pfns + "): " + what);
}

// A chunk's own fault, with the pages that go with it where it is damaged.
bool ImageReader::refused(uint32_t chunk, const Fault& inner, Fault* fault) const {
  if (strcmp(inner.code, "IMAGE_DAMAGED") == 0) return damaged(chunk, inner.text, fault);
  *fault = inner;
  return false;
}

// Lanes read one after the other what lies in the file one after the other: what comes soon is
// asked of the disk meanwhile.
constexpr uint64_t kAheadBytes = 8ull << 20;

bool ImageReader::read_span(LaneBuffers& lane, const Source& source, const ChunkEntry& entry,
                            Fault* fault) {
  posix_fadvise(source.fd, off_t(entry.offset + kAheadBytes), off_t(entry.span),
                POSIX_FADV_WILLNEED);
  return read_at(source, entry.offset, entry.span, lane.stored.get(), fault);
}

bool ImageReader::read_at(const Source& source, uint64_t offset, uint64_t bytes, uint8_t* out,
                          Fault* fault) {
  for (uint64_t done = 0; done < bytes;) {
    const ssize_t got = pread(source.fd, out + done, bytes - done, off_t(offset + done));
    if (got > 0) {
      done += uint64_t(got);
      continue;
    }
    if (got < 0 && errno == EINTR) continue;
    fault->offset = offset + done;
    if (got == 0) return fault->raise("IMAGE_DAMAGED", "the file became shorter while it was read");
    fault->sys_errno = errno;
    return fault->raise("IMAGE_READ_FAILED", std::string("read: ") + strerror(errno));
  }
  return true;
}

bool ImageReader::has_digest(const uint8_t* span, uint64_t bytes, const pfn::Sha256& digest,
                             Fault* fault) {
  pfn::Sha256 found;
  return pfn::sha256(span, bytes, &found, fault) && found == digest;
}

// A lane of which only a part could be had is asked for again the next time.
bool ImageReader::allocate(LaneBuffers& lane, Fault* fault) {
  lane.descs.resize(kMaxChunkPages);
  if (!lane.stored) lane.stored = allocate_aligned(kMaxChunkSpan);
  if (!lane.bodies) lane.bodies = allocate_aligned(kMaxChunkBodies * kPageBytes);
  return (lane.stored && lane.bodies) || fault->raise("NO_MEMORY", "no memory to read chunks");
}

// Reads a chunk into the lane, checksum first, then its structure.
bool ImageReader::load_place(LaneBuffers& lane, const Place& where, Fault* fault) {
  lane.loaded = lane.decoded_block = ~0ull;
  if (!allocate(lane, fault)) return false;
  const Source& source = sources_[where.source];
  const ChunkEntry& entry = source.chunks[where.chunk];
  if (!read_span(lane, source, entry, fault)) return false;
  const pfn::Hash128 hash = pfn::hash128(lane.stored.get(), entry.span);
  if (hash.low != entry.hash_low || hash.high != entry.hash_high)
    return fault->raise("IMAGE_DAMAGED", "its checksum differs");
  if (!source.digests.empty() &&
      !has_digest(lane.stored.get(), entry.span, source.digests[where.chunk], fault))
    return fault->code ? false : fault->raise("IMAGE_DAMAGED", "its digest differs");
  const ChunkExpect expect = {where.chunk, source.nr_pfns, source.newer, source.deltas};
  if (!parse_chunk(lane.stored.get(), entry.span, expect, &lane.view, fault)) return false;
  if (lane.view.header.pages != entry.pages || lane.view.header.bodies != entry.pages)
    return fault->raise("IMAGE_DAMAGED", "the chunk table has other counts");
  expand_runs(lane.view, lane.descs.data());
  lane.loaded = key_of(where);
  lane.matched = false;
  return true;
}

// The same, and its pages against the map.
bool ImageReader::load(LaneBuffers& lane, uint32_t chunk, Fault* fault) {
  Fault inner;
  if (!load_place(lane, places_[chunk], &inner)) return refused(chunk, inner, fault);
  if (check_pages(lane, chunk, fault)) return true;
  lane.loaded = ~0ull;
  return false;
}

// Every page the map seeks in this chunk must be here, with the class and type the map has.
bool ImageReader::check_pages(const LaneBuffers& lane, uint32_t chunk, Fault* fault) const {
  uint32_t current = 0;
  for (uint32_t slot = 0; slot < lane.view.header.pages; slot++) {
    const uint64_t desc = lane.descs[slot];
    if (!is_sought(chunk, slot, desc_pfn(desc))) continue;
    const PlacedRun& run = map_.runs()[map_.find(desc_pfn(desc))];
    if (run.page_class != desc_class(desc) || run.type != desc_type(desc))
      return damaged(chunk, "the page map has other classes", fault);
    current++;
  }
  return current == current_[chunk] || damaged(chunk, "the page map seeks other pages here", fault);
}

bool ImageReader::is_sought(uint32_t chunk, uint32_t slot, uint64_t pfn) const {
  if (pfn >= nr_pfns()) return false;
  const PlacedRun& run = map_.runs()[map_.find(pfn)];
  return run.chunk == chunk && run.slot + (pfn - run.first) == slot;
}

bool ImageReader::check_chunk(uint32_t lane, uint32_t chunk, Fault* fault) {
  return load(lanes_[lane].chunk, chunk, fault);
}

bool ImageReader::read_chunk(uint32_t lane_index, uint32_t chunk, DecodedChunk* out, Fault* fault) {
  LaneBuffers& lane = lanes_[lane_index].chunk;
  // Its pages are where those are that they rest on.
  *out = {lane.descs.data(), 0, lane.bodies.get(), 0};
  if (holds_deltas(chunk)) return true;
  if (!load(lane, chunk, fault)) return false;
  if (lane.view.header.kind == kChunkDeltas) return nothing_counts(chunk, fault);
  *out = {lane.descs.data(), lane.view.header.pages, lane.bodies.get(), lane.view.header.bodies};
  return decode_blocks(lane, chunk, may_go_whole(chunk), fault) &&
         apply_deltas(lanes_[lane_index], chunk, fault);
}

// What does not count goes along: where that is less than half, the room costs less than coding
// anew. Pages that deltas made are not in the chunk.
bool ImageReader::may_go_whole(uint32_t chunk) const {
  return 2 * current_[chunk] >= entry(chunk).pages && resting_on(chunk).count == 0;
}

bool ImageReader::counts_in(const LaneBuffers& lane, uint32_t chunk, uint32_t block) const {
  const uint32_t end = std::min<uint32_t>(lane.view.header.pages, (block + 1) * kBlockPages);
  for (uint32_t slot = block * kBlockPages; slot < end; slot++)
    if (is_current(chunk, slot, desc_pfn(lane.descs[slot]))) return true;
  return false;
}

bool ImageReader::decode_blocks(LaneBuffers& lane, uint32_t chunk, bool all, Fault* fault) {
  uint32_t n_pages = 0;
  for (uint32_t b = 0; b < lane.view.header.blocks; b++) {
    if (!all && !counts_in(lane, chunk, b)) continue;
    Fault inner;
    if (!decode_block(lane.view, b, lane.bodies.get() + uint64_t(b) * kBlockBytes, &n_pages,
                      &inner))
      return damaged(chunk, inner.text, fault);
  }
  return true;
}

bool ImageReader::whole_chunk(uint32_t lane, uint32_t chunk, const DecodedChunk& pages,
                              StoredChunk* out) const {
  const Source& source = sources_[places_[chunk].source];
  const LaneBuffers& read = lanes_[lane].chunk;
  if (source.newer || pages.n_pages == 0 || !may_go_whole(chunk)) return false;
  const ChunkEntry& from = entry(chunk);
  *out = {source.fd, from.offset, read.stored.get(), from.span, from.hash_low, from.hash_high,
          pages,     {}};
  for (uint32_t slot = 0; slot < pages.n_pages; slot++) {
    const uint64_t pfn = desc_pfn(pages.descs[slot]);
    if (pfn >= nr_pfns()) return false;
    out->counts.push_back(is_current(chunk, slot, pfn));
  }
  return true;
}

// Pages in the order of their pfns come from the chunks of one file and another by turns.
ImageReader::LaneBuffers& ImageReader::page_lane(const Place& where) {
  auto found = std::find_if(page_lanes_.begin(), page_lanes_.end(),
                            [&](const LaneBuffers& lane) { return lane.loaded == key_of(where); });
  if (found == page_lanes_.end())
    found = std::min_element(
        page_lanes_.begin(), page_lanes_.end(),
        [](const LaneBuffers& a, const LaneBuffers& b) { return a.last_use < b.last_use; });
  found->last_use = ++page_uses_;
  return *found;
}

// What a block that does not decode leaves in `bodies` is of no block.
bool ImageReader::decode(LaneBuffers& lane, uint32_t block, Fault* fault) {
  if (lane.decoded_block == block) return true;
  lane.decoded_block = ~0ull;
  uint32_t n_pages = 0;
  if (!decode_block(lane.view, block, lane.bodies.get(), &n_pages, fault)) return false;
  lane.decoded_block = block;
  return true;
}

bool ImageReader::read_page(uint64_t pfn, uint8_t* out, Fault* fault) {
  const PlacedRun& run = map_.runs()[map_.find(pfn)];
  if (!class_has_body(run.page_class)) {
    memset(out, 0, kPageBytes);
    return true;
  }
  const Place& where = places_[run.chunk];
  LaneBuffers& lane = page_lane(where);
  if (lane.loaded != key_of(where)) {
    if (!load(lane, run.chunk, fault)) return false;
  } else if (!lane.matched && !check_pages(lane, run.chunk, fault)) {
    return false;
  }
  lane.matched = true;
  const uint32_t body = uint32_t(run.slot + (pfn - run.first));
  if (lane.view.header.kind == kChunkDeltas) return read_delta(lane, run.chunk, body, out, fault);
  Fault inner;
  if (!decode(lane, body / kBlockPages, &inner)) return damaged(run.chunk, inner.text, fault);
  memcpy(out, lane.bodies.get() + uint64_t(body % kBlockPages) * kPageBytes, kPageBytes);
  return true;
}

void ImageReader::prepare_hashes() {
  for (Source& source : sources_) {
    if (source.hashes_stored || source.chunks.empty()) continue;
    const uint64_t pages = source.first_page.back() + source.chunks.back().pages;
    source.page_hashes.resize(pages);
  }
}

bool ImageReader::has_hashes() const {
  for (size_t i = 0; i < places_.size(); i++)
    if (current_[i] > 0 && sources_[places_[i].source].page_hashes.empty()) return false;
  return true;
}

bool ImageReader::hash_chunk(uint32_t lane_index, uint32_t chunk, Fault* fault) {
  Source& source = sources_[places_[chunk].source];
  if (!source.hashes_stored && source.page_hashes.empty())
    return fault->raise("INTERNAL", "no room for hashes was made");
  LaneBuffers& lane = lanes_[lane_index].chunk;
  if (!load(lane, chunk, fault)) return false;
  // What deltas make is compared with its hash where it is made, which is where they rest.
  if (lane.view.header.kind == kChunkDeltas)
    return bases_of_.empty() || holds_deltas(chunk) || nothing_counts(chunk, fault);
  if (!decode_blocks(lane, chunk, true, fault)) return false;
  pfn::Hash128* out = &source.page_hashes[source.first_page[places_[chunk].chunk]];
  for (uint32_t i = 0; i < lane.view.header.bodies; i++) {
    const pfn::Hash128 hash =
        pfn::hash128(lane.bodies.get() + uint64_t(i) * kPageBytes, kPageBytes);
    if (!source.hashes_stored) {
      out[i] = hash;
    } else if (!(out[i] == hash)) {
      fault->chunk = chunk;
      return fault->raise("IMAGE_DAMAGED", "a page of chunk " + std::to_string(chunk) +
                                               " is not what its stored hash says");
    }
  }
  return apply_deltas(lanes_[lane_index], chunk, fault);
}

pfn::Hash128 ImageReader::page_hash(const PlacedRun& run, uint64_t pfn) const {
  if (run.page_class == kClassZero) return zero_page_hash();
  if (!class_has_body(run.page_class)) return {0, 0};
  const Place& where = places_[run.chunk];
  const Source& source = sources_[where.source];
  return source.page_hashes[source.first_page[where.chunk] + run.slot + (pfn - run.first)];
}

bool ImageReader::holds(uint64_t desc, const uint8_t* body) const {
  const uint64_t pfn = desc_pfn(desc);
  if (pfn >= nr_pfns()) return false;
  const PlacedRun& run = map_.runs()[map_.find(pfn)];
  if (run.page_class != desc_class(desc) || run.type != desc_type(desc)) return false;
  return !class_has_body(run.page_class) || pfn::hash128(body, kPageBytes) == page_hash(run, pfn);
}

}  // namespace dormouse::image
