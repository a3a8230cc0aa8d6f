#include "image/lane.h"

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>

#include "guard.h"
#include "image/encode.h"
#include "pfn/page_scan.h"

namespace dormouse::image {

namespace {

constexpr uint64_t kHugePageBytes = 2u << 20;

// Less for the kernel to fill and to pin for direct I/O than small pages.
AlignedBytes allocate_huge(uint64_t bytes) {
  const uint64_t whole = (bytes + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
  AlignedBytes made(static_cast<uint8_t*>(std::aligned_alloc(kHugePageBytes, whole)));
  if (made) madvise(made.get(), whole, MADV_HUGEPAGE);  // advice: harmless where refused
  return made;
}

}  // namespace

void ChunkTable::put(uint32_t chunk, const ChunkEntry& entry, ChunkNotes notes) {
  std::lock_guard<std::mutex> hold(lock_);
  if (entries_.size() <= chunk) {
    entries_.resize(chunk + 1);
    notes_.resize(chunk + 1);
  }
  entries_[chunk] = entry;
  notes_[chunk] = std::move(notes);
}

Lane::Lane(OutputFile& file, ChunkTable& table, WriterMap& map, Compression compression,
           const DeltaUse& deltas)
    : file_(file), table_(table), map_(map), coder_(compression) {
  if (deltas.pages) deltas_ = std::make_unique<DeltaChunk>(deltas);
}

// A chunk begins only below kSegmentBytes, so the longest one still fits behind it, and one of
// deltas that is put before it.
bool Lane::allocate() {
  const uint64_t room = kSegmentBytes + kMaxChunkSpan + (deltas_ ? DeltaChunk::kMaxSpan : 0);
  segment_ = allocate_huge(room);
  written_ = allocate_huge(room);
  staging_ = allocate_aligned(kBlockBytes);
  return segment_ && written_ && staging_ && (!deltas_ || deltas_->allocate());
}

void Lane::open_chunk() {
  open_ = true;
  start_ = at_;
  number_ = table_.next_number();
  at_ += sizeof(ChunkHeader);
  pages_ = blocks_ = runs_ = 0;
}

void Lane::encode_block(const uint8_t* pages, uint32_t n) {
  const uint32_t bytes = coder_.encode(pages, n, segment_.get() + at_, &lengths_[blocks_++]);
  at_ += bytes;
  coded_pages_ += n;
  coded_bytes_ += bytes;
}

void Lane::add_body(const uint8_t* body) {
  if (table_.page_hashes()) notes_.page_hashes.push_back(pfn::hash128(body, kPageBytes));
  if (staged_pages_ == 0) {
    if (direct_pages_++ == 0) direct_ = body;
    if (direct_pages_ < kBlockPages) return;
    encode_block(direct_, kBlockPages);
    direct_pages_ = 0;
    return;
  }
  std::memcpy(staging_.get() + uint64_t(staged_pages_) * kPageBytes, body, kPageBytes);
  if (++staged_pages_ < kBlockPages) return;
  encode_block(staging_.get(), kBlockPages);
  staged_pages_ = 0;
}

bool Lane::place(uint64_t desc, uint32_t chunk, uint16_t slot, Fault* fault) {
  uint8_t before;
  if (!map_.put(desc, chunk, slot, &before, fault)) return false;
  counts_[before].fetch_sub(1, std::memory_order_relaxed);
  counts_[desc_class(desc)].fetch_add(1, std::memory_order_relaxed);
  return true;
}

bool Lane::keep(uint64_t desc, Fault* fault) {
  return place(desc | uint64_t(kKept) << 56, 0, 0, fault);
}

bool Lane::add_page(uint64_t desc, Fault* fault) {
  ChunkRun* last = runs_ ? &run_[runs_ - 1] : nullptr;
  if (last && desc == last->desc + last->count)
    last->count++;
  else
    run_[runs_++] = {desc, 1};
  return place(desc, number_, uint16_t(pages_++), fault);
}

bool Lane::close_chunk(Fault* fault) {
  if (direct_pages_) encode_block(direct_, direct_pages_);
  if (staged_pages_) encode_block(staging_.get(), staged_pages_);
  direct_pages_ = staged_pages_ = 0;
  uint8_t* base = segment_.get() + start_;
  ChunkHeader h = {};
  h.pages = h.bodies = uint16_t(pages_);
  h.runs = uint16_t(runs_);
  h.blocks = uint16_t(blocks_);
  uint8_t* end = image::close_chunk(&h, lengths_, run_, base, segment_.get() + at_);
  std::memset(end, 0, size_t(base + h.span - end));
  at_ = start_ + h.span;
  open_ = false;
  ChunkNotes notes = std::move(notes_);
  notes_ = {};
  return seal(h, number_, start_, std::move(notes), fault);
}

bool Lane::seal(const ChunkHeader& h, uint32_t number, uint64_t start, ChunkNotes notes,
                Fault* fault) {
  const uint8_t* const base = segment_.get() + start;
  const pfn::Hash128 hash = pfn::hash128(base, h.span);
  if (table_.digests() && !pfn::sha256(base, h.span, &notes.digest, fault)) return false;
  closed_.push_back({number, {start, h.span, h.pages, 0, hash.low, hash.high}, std::move(notes)});
  return true;
}

// Half of what a page takes here in a block. Before the first block nobody knows.
uint32_t Lane::worth_bytes() const {
  constexpr uint32_t kGuess = 1024, kLeast = 64;
  if (coded_pages_ == 0) return kGuess;
  return std::max(kLeast, uint32_t(coded_bytes_ / coded_pages_ / 2));
}

// The page that deltas_ just took.
bool Lane::place_delta(uint64_t desc, Fault* fault) {
  if (deltas_->pages() == 1) deltas_->number = table_.next_number();
  if (!place(desc, deltas_->number, uint16_t(deltas_->pages() - 1), fault)) return false;
  // The bodies that wait to be encoded no longer follow each other.
  stage();
  return !deltas_->full() || close_deltas(fault);
}

// They come before the open chunk, which moves, as it grows at its end.
bool Lane::close_deltas(Fault* fault) {
  const uint64_t start = open_ ? start_ : at_;
  uint8_t* const at = segment_.get() + start;
  const uint32_t span = deltas_->span();
  std::memmove(at + span, at, size_t(at_ - start));
  at_ += span;
  start_ += span;
  ChunkNotes notes;
  notes.page_hashes = std::move(deltas_->page_hashes);
  deltas_->page_hashes.clear();
  const ChunkHeader h = deltas_->close(at);
  if (!seal(h, deltas_->number, start, std::move(notes), fault)) return false;
  if ((open_ ? start_ : at_) < kSegmentBytes) return true;
  return (!open_ || close_chunk(fault)) && write_segment(true, fault);
}

Lane::~Lane() {
  if (writing_.joinable()) writing_.join();
}

bool Lane::finish_write(Fault* fault) {
  if (writing_.joinable()) writing_.join();
  if (writing_ns_) coder_.wrote(writing_bytes_, writing_ns_);
  writing_ns_ = 0;
  if (!write_fault_) return true;
  *fault = write_fault_;
  return false;
}

bool Lane::write_segment(bool beside, Fault* fault) {
  if (!finish_write(fault)) return false;
  if (at_ == 0) return true;
  const uint64_t offset = file_.reserve(at_);
  for (Closed& c : closed_) {
    c.entry.offset += offset;
    table_.put(c.chunk, c.entry, std::move(c.notes));
  }
  closed_.clear();
  std::swap(segment_, written_);
  writing_bytes_ = at_;
  const auto write = [this, offset] {
    using Clock = std::chrono::steady_clock;
    const auto began = Clock::now();
    const bool good = guarded(&write_fault_, [&] {
      return file_.write_at(offset, written_.get(), writing_bytes_, &write_fault_);
    });
    const std::chrono::nanoseconds took = Clock::now() - began;
    if (good && file_.is_direct(writing_bytes_)) writing_ns_ = uint64_t(took.count());
  };
  if (beside)
    writing_ = std::thread(write);
  else
    write();
  at_ = 0;
  pending_.store(0, std::memory_order_relaxed);
  return true;
}

bool Lane::make_room(Fault* fault) {
  if (open_ && pages_ == kMaxChunkBodies) {
    if (!close_chunk(fault)) return false;
    if (at_ >= kSegmentBytes && !write_segment(true, fault)) return false;
  }
  if (!open_) open_chunk();
  return true;
}

// What is not encoded yet is copied.
void Lane::stage() {
  if (direct_pages_ == 0) return;
  std::memcpy(staging_.get(), direct_, uint64_t(direct_pages_) * kPageBytes);
  staged_pages_ = direct_pages_;
  direct_pages_ = 0;
}

bool Lane::append(const uint64_t* descs, uint32_t n_pages, const uint8_t* bodies, Fault* fault) {
  uint64_t with_body = 0;
  for (uint32_t i = 0; i < n_pages; i++) {
    if (!class_has_body(desc_class(descs[i]))) {
      if (!place(descs[i], 0, 0, fault)) return false;
      continue;
    }
    const uint8_t* const body = bodies + with_body++ * kPageBytes;
    const bool has_delta = deltas_ && desc_class(descs[i]) == kClassData;
    if (has_delta && deltas_->add(descs[i], body, worth_bytes())) {
      if (!place_delta(descs[i], fault)) return false;
      continue;
    }
    if (!make_room(fault) || !add_page(descs[i], fault)) return false;
    add_body(body);
    if (has_delta) deltas_->keep(descs[i], body, number_, uint16_t(pages_ - 1));
  }
  // The caller's buffer is its own again.
  stage();
  total_pages_.fetch_add(with_body, std::memory_order_relaxed);
  pending_.store(at_, std::memory_order_relaxed);
  return true;
}

bool Lane::take(const StoredChunk& chunk, Fault* fault) {
  const DecodedChunk& pages = chunk.pages;
  const uint32_t number = table_.next_number();
  ChunkNotes notes;
  if (table_.page_hashes())
    for (uint32_t i = 0; i < pages.n_pages; i++)
      notes.page_hashes.push_back(
          pfn::hash128(pages.bodies + uint64_t(i) * kPageBytes, kPageBytes));
  if (table_.digests() && !pfn::sha256(chunk.span, chunk.bytes, &notes.digest, fault)) return false;
  for (uint32_t i = 0; i < pages.n_pages; i++)
    if (chunk.counts[i] && !place(pages.descs[i], number, uint16_t(i), fault)) return false;
  uint64_t offset = 0;
  if (!file_.share(chunk.fd, chunk.offset, chunk.span, chunk.bytes, &offset, fault)) return false;
  const ChunkEntry entry = {offset, chunk.bytes,    uint16_t(pages.n_pages),
                            0,      chunk.hash_low, chunk.hash_high};
  table_.put(number, entry, std::move(notes));
  total_pages_.fetch_add(pages.n_pages, std::memory_order_relaxed);
  return true;
}

bool Lane::flush(Fault* fault) {
  if (open_ && !close_chunk(fault)) return false;
  if (deltas_ && deltas_->pages() && !close_deltas(fault)) return false;
  return write_segment(false, fault) && finish_write(fault);
}

}  // namespace dormouse::image
