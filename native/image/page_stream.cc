#include "image/page_stream.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "guard.h"
#include "pfn/page_scan.h"

namespace dormouse::image {
namespace {

constexpr uint32_t kPageData = 1;
constexpr uint32_t kRecordPages = 1000;  // a writev takes no more parts than 1024
alignas(64) const uint8_t kZeroPage[kPageBytes] = {};

struct RecordHead {
  uint32_t type, length, count, reserved;
  uint64_t pfns[kRecordPages];
};

iovec part(const void* from, uint64_t bytes) { return {const_cast<void*>(from), size_t(bytes)}; }

// As many of the pages as a piece may hold.
PageRun take_piece(PageRun* left, uint32_t max_pages, uint32_t max_bodies) {
  PageRun piece = {left->descs, 0, left->bodies, 0};
  while (piece.n_pages < std::min(max_pages, left->n_pages)) {
    const bool has_body = class_has_body(desc_class(left->descs[piece.n_pages]));
    if (has_body && piece.n_bodies == max_bodies) break;
    piece.n_bodies += has_body;
    ++piece.n_pages;
  }
  *left = {left->descs + piece.n_pages, left->n_pages - piece.n_pages,
           left->bodies + uint64_t(piece.n_bodies) * kPageBytes, left->n_bodies - piece.n_bodies};
  return piece;
}

// Whether the page's 4096 bytes are in a libxc stream, which knows no zero pages.
bool in_record(uint64_t desc) {
  return class_has_body(desc_class(desc)) || desc_class(desc) == kClassZero;
}

}  // namespace

PageStream::PageStream(const StreamSetup& setup)
    : out_(setup.fd, setup.stall_ms),
      format_(setup.format),
      nr_pfns_(setup.nr_pfns),
      map_(setup.nr_pfns) {
  std::memcpy(id_, setup.id, sizeof id_);
}

std::shared_ptr<PageStream> PageStream::create(const StreamSetup& setup, Fault* fault) {
  std::shared_ptr<PageStream> stream(new PageStream(setup));
  bool allocated = stream->map_.allocated();
  for (uint32_t i = 0; i < setup.lanes && allocated; ++i) {
    stream->lanes_.push_back(std::make_unique<LaneBuffers>());
    if (setup.format == StreamFormat::libxc) continue;
    stream->lanes_[i]->chunk = allocate_aligned(kMaxChunkSpan);
    allocated = stream->lanes_[i]->chunk != nullptr;
  }
  if (allocated) return stream;
  fault->raise("NO_MEMORY", "no memory for the stream's lanes and page map");
  return nullptr;
}

// Holding the output lock.
bool PageStream::fail(Fault* fault) {
  if (!fault_) fault_ = *fault;
  return false;
}

bool PageStream::put_frame(uint8_t kind, const uint8_t* body, uint32_t n, Fault* fault) {
  FrameHead head = {};
  head.magic = kFrameMagic;
  head.kind = kind;
  head.head_size = sizeof head;
  head.body_size = n;
  const pfn::Hash128 of_body = pfn::hash128(body, n);
  head.body_hash[0] = of_body.low;
  head.body_hash[1] = of_body.high;
  constexpr size_t kHashed = offsetof(FrameHead, head_hash);
  uint8_t hashed[kHashed + sizeof id_];
  std::lock_guard<std::mutex> hold(output_lock_);
  if (fault_) {
    *fault = fault_;
    return false;
  }
  head.number = frames_++;
  std::memcpy(hashed, &head, kHashed);
  std::memcpy(hashed + kHashed, id_, sizeof id_);
  const pfn::Hash128 of_head = pfn::hash128(hashed, sizeof hashed);
  head.head_hash[0] = of_head.low;
  head.head_hash[1] = of_head.high;
  iovec parts[2] = {part(&head, sizeof head), part(body, n)};
  if (!out_.write(parts, 2, fault)) return fail(fault);
  written_ += sizeof head + n;
  return true;
}

bool PageStream::put_bytes(const uint8_t* bytes, uint64_t n, Fault* fault) {
  iovec parts[1] = {part(bytes, n)};
  std::lock_guard<std::mutex> hold(output_lock_);
  if (fault_) {
    *fault = fault_;
    return false;
  }
  if (!out_.write(parts, 1, fault)) return fail(fault);
  written_ += n;
  return true;
}

bool PageStream::put_chunk(LaneBuffers& lane, const PageRun& pages, Fault* fault) {
  const uint32_t bytes = encode_chunk(lane.coder, pages, lane.chunk.get());
  return put_frame(kFramePages, lane.chunk.get(), bytes, fault);
}

bool PageStream::put_record(const PageRun& pages, Fault* fault) {
  RecordHead head;
  iovec parts[1 + kRecordPages];
  const uint8_t* body = pages.bodies;
  uint32_t n_parts = 1, sent = 0;
  for (uint32_t i = 0; i < pages.n_pages; ++i) {
    const uint64_t desc = pages.descs[i];
    head.pfns[i] = desc_pfn(desc) | uint64_t(desc_type(desc)) << 60;
    if (!in_record(desc)) continue;
    const bool is_zero = desc_class(desc) == kClassZero;
    parts[n_parts++] = part(is_zero ? kZeroPage : body, kPageBytes);
    body += is_zero ? 0 : kPageBytes;
    ++sent;
  }
  const uint64_t head_bytes = 16 + 8ull * pages.n_pages;
  head.type = kPageData;
  head.length = uint32_t(head_bytes - 8 + uint64_t(sent) * kPageBytes);
  head.count = pages.n_pages;
  head.reserved = 0;
  parts[0] = part(&head, head_bytes);
  std::lock_guard<std::mutex> hold(output_lock_);
  if (fault_) {
    *fault = fault_;
    return false;
  }
  if (!out_.write(parts, int(n_parts), fault)) return fail(fault);
  written_ += 8 + head.length;
  return true;
}

bool PageStream::account(const PageRun& pages, Fault* fault) {
  for (uint32_t i = 0; i < pages.n_pages; ++i) {
    uint8_t before;
    if (!map_.put(pages.descs[i], 0, 0, &before, fault)) return false;
    counts_[before].fetch_sub(1, std::memory_order_relaxed);
    counts_[desc_class(pages.descs[i])].fetch_add(1, std::memory_order_relaxed);
  }
  return true;
}

bool PageStream::append(uint32_t lane, const uint64_t* descs, uint32_t n_pages,
                        const uint8_t* bodies, uint32_t n_bodies, Fault* fault) {
  if (lane >= lanes_.size()) return fault->raise("INTERNAL", "no lane " + std::to_string(lane));
  const PageRun pages = {descs, n_pages, bodies, n_bodies};
  if (!check_pages(pages, nr_pfns_, fault)) return false;
  // What was counted and is not sent would be missing where it is received.
  if (!guarded(fault, [&] { return account(pages, fault); })) {
    std::lock_guard<std::mutex> hold(output_lock_);
    return fail(fault);
  }
  LaneBuffers& own = *lanes_[lane];
  if (n_bodies != 0 || n_pages > kMaxChunkPages) return put(own, pages, fault);
  if (own.n_waiting + n_pages > kMaxChunkPages && !end_step(lane, fault)) return false;
  std::copy(descs, descs + n_pages, own.waiting + own.n_waiting);
  own.n_waiting += n_pages;
  return true;
}

bool PageStream::end_step(uint32_t lane, Fault* fault) {
  LaneBuffers& own = *lanes_[lane];
  const PageRun pages = {own.waiting, own.n_waiting, nullptr, 0};
  own.n_waiting = 0;
  return put(own, pages, fault);
}

bool PageStream::put(LaneBuffers& lane, PageRun pages, Fault* fault) {
  while (pages.n_pages > 0) {
    const bool good =
        format_ == StreamFormat::libxc
            ? put_record(take_piece(&pages, kRecordPages, kRecordPages), fault)
            : put_chunk(lane, take_piece(&pages, kMaxChunkPages, kMaxChunkBodies), fault);
    if (!good) return false;
  }
  return true;
}

uint64_t PageStream::count(uint8_t page_class) const {
  return uint64_t(std::max<int64_t>(counts_[page_class].load(std::memory_order_relaxed), 0));
}

bool PageStream::check_complete(Fault* fault) const {
  const uint64_t absent = map_.first_absent(0);
  if (absent == nr_pfns_) return true;
  fault->pfn = absent;
  return fault->raise("ACCOUNTING_MISMATCH",
                      "pfn " + std::to_string(absent) + " was never put into the stream");
}

}  // namespace dormouse::image
