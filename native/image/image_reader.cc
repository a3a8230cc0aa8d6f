#include "image/image_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>

#include "pfn/page_scan.h"

namespace dormouse::image {

std::shared_ptr<ImageReader> ImageReader::open(const ReaderSetup& setup, Fault* fault) {
  std::shared_ptr<ImageReader> reader(new ImageReader());
  memcpy(reader->image_id_, setup.image_id, sizeof reader->image_id_);
  reader->has_parent_ = setup.has_parent;
  reader->chunks_.resize(setup.n_chunks);
  memcpy(static_cast<void*>(reader->chunks_.data()), setup.chunk_table,
         setup.n_chunks * sizeof(ChunkEntry));
  if (!reader->check_table(setup, fault)) return nullptr;
  if (!reader->map_.decode(setup.page_map, setup.page_map_bytes, setup.page_map_runs, setup.nr_pfns,
                           setup.has_parent, reader->chunks_, fault))
    return nullptr;
  reader->current_.resize(setup.n_chunks);
  const auto& runs = reader->map_.runs();
  for (size_t i = 0; i < runs.size(); i++)
    reader->current_[runs[i].chunk] += uint32_t(reader->map_.end_of(i) - runs[i].first);
  reader->lanes_.resize(setup.lanes + 1);
  reader->fd_ = fcntl(setup.fd, F_DUPFD_CLOEXEC, 3);
  if (reader->fd_ >= 0) return reader;
  fault->raise("IMAGE_READ_FAILED", strerror(errno));
  return nullptr;
}

ImageReader::~ImageReader() {
  if (fd_ >= 0) close(fd_);
}

// The chunks' spans must tile the file from the first page to chunks_end.
bool ImageReader::check_table(const ReaderSetup& setup, Fault* fault) const {
  std::vector<uint32_t> order(chunks_.size());
  uint64_t pages = 0;
  for (uint32_t i = 0; i < order.size(); i++) order[i] = i;
  std::sort(order.begin(), order.end(),
            [&](uint32_t a, uint32_t b) { return chunks_[a].offset < chunks_[b].offset; });
  uint64_t at = kPageBytes;
  for (uint32_t i : order) {
    const ChunkEntry& c = chunks_[i];
    fault->chunk = i;
    fault->offset = c.offset;
    const bool sane = c.offset == at && c.span >= kPageBytes && c.span <= kMaxChunkSpan &&
                      c.span % kPageBytes == 0 && c.pages >= 1 && c.pages <= kMaxChunkPages &&
                      c.bodies <= c.pages && c.bodies <= kMaxChunkBodies;
    if (!sane) return fault->raise("IMAGE_DAMAGED", "chunk table: an entry is out of place");
    at += c.span;
    pages += c.pages;
  }
  fault->chunk = fault->offset = Fault::kNowhere;
  if (at == setup.chunks_end && pages >= setup.nr_pfns) return true;
  return fault->raise("IMAGE_DAMAGED", "chunk table: its chunks do not make up the image");
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
  if (pfns.empty()) pfns = "none that count";
  fault->chunk = chunk;
  fault->offset = chunks_[chunk].offset;
  return fault->raise("IMAGE_DAMAGED", "chunk " + std::to_string(chunk) + " at offset " +
                                           std::to_string(fault->offset) + " (pfns " + pfns +
                                           "): " + what);
}

// Lanes read one after the other what lies in the file one after the other: what comes soon is
// asked of the disk meanwhile.
constexpr uint64_t kAheadBytes = 8ull << 20;

bool ImageReader::read_span(LaneBuffers& lane, const ChunkEntry& entry, Fault* fault) {
  posix_fadvise(fd_, off_t(entry.offset + kAheadBytes), off_t(entry.span), POSIX_FADV_WILLNEED);
  for (uint64_t done = 0; done < entry.span;) {
    const ssize_t got =
        pread(fd_, lane.stored.get() + done, entry.span - done, off_t(entry.offset + done));
    if (got > 0) {
      done += uint64_t(got);
      continue;
    }
    if (got < 0 && errno == EINTR) continue;
    fault->offset = entry.offset + done;
    if (got == 0) return fault->raise("IMAGE_DAMAGED", "the file became shorter while it was read");
    fault->sys_errno = errno;
    return fault->raise("IMAGE_READ_FAILED", std::string("read: ") + strerror(errno));
  }
  return true;
}

// Reads a chunk into the lane, checksum first, then its structure, then its pages against the map.
bool ImageReader::load(LaneBuffers& lane, uint32_t chunk, Fault* fault) {
  lane.loaded = lane.decoded_block = ~0ull;
  if (!lane.stored) {
    lane.stored = allocate_aligned(kMaxChunkSpan);
    lane.bodies = allocate_aligned(kMaxChunkBodies * kPageBytes);
    lane.descs.resize(kMaxChunkPages);
    if (!lane.stored || !lane.bodies) return fault->raise("NO_MEMORY", "no memory to read chunks");
  }
  const ChunkEntry& entry = chunks_[chunk];
  if (!read_span(lane, entry, fault)) return false;
  const pfn::Hash128 hash = pfn::hash128(lane.stored.get(), entry.span);
  if (hash.low != entry.hash_low || hash.high != entry.hash_high)
    return damaged(chunk, "its checksum differs", fault);
  const ChunkExpect expect = {image_id_, chunk, nr_pfns(), has_parent_};
  Fault inner;
  if (!parse_chunk(lane.stored.get(), entry.span, expect, &lane.view, &inner))
    return damaged(chunk, inner.text, fault);
  if (lane.view.header.pages != entry.pages || lane.view.header.bodies != entry.bodies)
    return damaged(chunk, "the chunk table has other counts", fault);
  expand_runs(lane.view, lane.descs.data());
  if (!check_pages(lane, chunk, fault)) return false;
  lane.loaded = chunk;
  return true;
}

// Every page the map seeks in this chunk must be here, with the class and type the map has.
bool ImageReader::check_pages(const LaneBuffers& lane, uint32_t chunk, Fault* fault) const {
  uint32_t current = 0;
  for (uint32_t slot = 0; slot < lane.view.header.pages; slot++) {
    const uint64_t desc = lane.descs[slot];
    if (!is_current(chunk, slot, desc_pfn(desc))) continue;
    const PlacedRun& run = map_.runs()[map_.find(desc_pfn(desc))];
    if (run.page_class != desc_class(desc) || run.type != desc_type(desc))
      return damaged(chunk, "the page map has other classes", fault);
    current++;
  }
  return current == current_[chunk] || damaged(chunk, "the page map seeks other pages here", fault);
}

bool ImageReader::is_current(uint32_t chunk, uint32_t slot, uint64_t pfn) const {
  const PlacedRun& run = map_.runs()[map_.find(pfn)];
  return run.chunk == chunk && run.slot + (pfn - run.first) == slot;
}

bool ImageReader::check_chunk(uint32_t lane, uint32_t chunk, Fault* fault) {
  return load(lanes_[lane], chunk, fault);
}

bool ImageReader::read_chunk(uint32_t lane_index, uint32_t chunk, DecodedChunk* out, Fault* fault) {
  LaneBuffers& lane = lanes_[lane_index];
  if (!load(lane, chunk, fault)) return false;
  uint32_t n_pages = 0;
  for (uint32_t b = 0; b < lane.view.header.blocks; b++) {
    Fault inner;
    if (!decode_block(lane.view, b, lane.bodies.get() + uint64_t(b) * kBlockBytes, &n_pages,
                      &inner))
      return damaged(chunk, inner.text, fault);
  }
  *out = {lane.descs.data(), lane.view.header.pages, lane.bodies.get(), lane.view.header.bodies};
  return true;
}

bool ImageReader::read_page(uint64_t pfn, uint8_t* out, Fault* fault) {
  const PlacedRun& run = map_.runs()[map_.find(pfn)];
  if (run.page_class == kClassSameAsParent) {
    fault->pfn = pfn;
    return fault->raise("IMAGE_NOT_RESTORABLE", "that page is in the parent image");
  }
  if (!class_has_body(run.page_class)) {
    memset(out, 0, kPageBytes);
    return true;
  }
  LaneBuffers& lane = lanes_.back();
  if (lane.loaded != run.chunk && !load(lane, run.chunk, fault)) return false;
  const uint32_t slot = uint32_t(run.slot + (pfn - run.first));
  uint32_t body = 0, n_pages = 0;
  for (uint32_t s = 0; s < slot; s++) body += class_has_body(desc_class(lane.descs[s]));
  const uint32_t block = body / kBlockPages;
  Fault inner;
  if (lane.decoded_block != block &&
      !decode_block(lane.view, block, lane.bodies.get(), &n_pages, &inner))
    return damaged(run.chunk, inner.text, fault);
  lane.decoded_block = block;
  memcpy(out, lane.bodies.get() + uint64_t(body % kBlockPages) * kPageBytes, kPageBytes);
  return true;
}

}  // namespace dormouse::image
