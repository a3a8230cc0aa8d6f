#include "image/image_writer.h"

#include <algorithm>
#include <cstring>

#include "guard.h"
#include "image/encode.h"

namespace dormouse::image {

static constexpr uint64_t kTailBytes = 1u << 20;

ImageWriter::ImageWriter(const WriterSetup& setup)
    : nr_pfns_(setup.nr_pfns),
      parent_pfns_(setup.parent_pfns),
      parent_(setup.parent),
      full_map_(setup.full_map),
      skip_unchanged_(setup.skip_unchanged),
      complete_(setup.complete),
      table_(setup.page_hashes, setup.digests),
      map_(setup.nr_pfns),
      deltas_(setup.deltas) {
  if (!full_map_) return;
  // Ancestors from which nothing is needed any more are left out; the parent never is.
  uint16_t next = 1;
  for (const bool used : parent_->used_sources())
    ancestor_.push_back(used || next == 1 ? next++ : 0);
}

bool ImageWriter::start(const WriterSetup& setup, Fault* fault) {
  tail_ = allocate_aligned(kTailBytes);
  bool allocated = map_.allocated() && tail_;
  for (uint32_t i = 0; i < setup.lanes && allocated; i++) {
    lanes_.push_back(std::make_unique<Lane>(*file_, table_, map_, setup.compression, deltas_));
    allocated = lanes_.back()->allocate();
  }
  if (!allocated) return fault->raise("NO_MEMORY", "no memory for the image's lanes and page map");
  std::memcpy(tail_.get(), setup.header, kPageBytes);
  return file_->write_at(file_->reserve(kPageBytes), tail_.get(), kPageBytes, fault);
}

std::shared_ptr<ImageWriter> ImageWriter::create(const WriterSetup& setup, Fault* fault) {
  auto file = OutputFile::create(setup.place, fault);
  if (!file) return nullptr;
  std::shared_ptr<ImageWriter> writer(new ImageWriter(setup));
  writer->file_ = std::move(file);
  return writer->start(setup, fault) ? writer : nullptr;
}

bool ImageWriter::fail(Fault* fault) {
  std::lock_guard<std::mutex> hold(fault_lock_);
  if (!failed_) fault_ = *fault;
  failed_ = true;
  return false;
}

bool ImageWriter::failed(Fault* fault) {
  if (!failed_) return false;
  std::lock_guard<std::mutex> hold(fault_lock_);
  *fault = fault_;
  return true;
}

bool ImageWriter::append(uint32_t lane, const uint64_t* descs, uint32_t n_pages,
                         const uint8_t* bodies, uint32_t n_bodies, Fault* fault) {
  if (failed(fault)) return false;
  if (lane >= lanes_.size()) {
    fault->raise("INTERNAL", "no lane " + std::to_string(lane));
    return fail(fault);
  }
  const PageRun pages = {descs, n_pages, bodies, n_bodies};
  if (!check_pages(pages, nr_pfns_, fault)) return fail(fault);
  // A lane that memory failed in the middle of a chunk is never whole again.
  const bool good = guarded(fault, [&] {
    return skip_unchanged_ ? append_changed(*lanes_[lane], pages, fault)
                           : lanes_[lane]->append(descs, n_pages, bodies, fault);
  });
  return good || fail(fault);
}

bool ImageWriter::take(uint32_t lane, const StoredChunk& chunk, Fault* fault) {
  if (failed(fault)) return false;
  return guarded(fault, [&] { return lanes_[lane]->take(chunk, fault); }) || fail(fault);
}

// Leaves out what the parent holds as it is.
bool ImageWriter::append_changed(Lane& lane, const PageRun& pages, Fault* fault) {
  uint32_t first = 0;
  const uint8_t* first_body = pages.bodies;
  const uint8_t* body = pages.bodies;
  for (uint32_t i = 0; i < pages.n_pages; i++) {
    const uint64_t desc = pages.descs[i];
    const uint8_t* after = body + (class_has_body(desc_class(desc)) ? kPageBytes : 0);
    if (parent_->holds(desc, body)) {
      if (!lane.append(pages.descs + first, i - first, first_body, fault)) return false;
      if (!lane.keep(desc, fault)) return false;
      first = i + 1;
      first_body = after;
    }
    body = after;
  }
  return lane.append(pages.descs + first, pages.n_pages - first, first_body, fault);
}

uint64_t ImageWriter::count(uint8_t page_class) const {
  int64_t sum = 0;
  for (const auto& lane : lanes_) sum += lane->counted(page_class);
  return uint64_t(std::max<int64_t>(sum, 0));
}

uint64_t ImageWriter::stored_pages() const {
  uint64_t sum = 0;
  for (const auto& lane : lanes_) sum += lane->stored_pages();
  return sum;
}

uint64_t ImageWriter::stored_bytes() const {
  uint64_t sum = file_->reserved();
  for (const auto& lane : lanes_) sum += lane->pending_bytes();
  return sum;
}

uint32_t ImageWriter::delta_ages() const {
  uint32_t ages = 0;
  for (const auto& lane : lanes_) ages |= lane->delta_ages();
  return ages;
}

bool ImageWriter::finish(Fault* fault) {
  if (failed(fault)) return false;
  for (const auto& lane : lanes_)
    if (!guarded(fault, [&] { return lane->flush(fault); })) return fail(fault);
  const uint64_t absent = map_.first_absent(complete_ ? 0 : parent_pfns_);
  if (absent == nr_pfns_) return true;
  fault->pfn = absent;
  fault->raise("ACCOUNTING_MISMATCH",
               "pfn " + std::to_string(absent) + " was never put into the image");
  return fail(fault);
}

// What was not put: as in the parent, or, in a full map, where the parent has it.
void ImageWriter::fill_gap(uint64_t first, uint64_t end) {
  if (!full_map_) {
    for (; first < end; first += kMaxRunPages)
      coder_.add({uint32_t(std::min<uint64_t>(kMaxRunPages, end - first)), 0, 0, 0, 0, 0, 0});
    return;
  }
  const ReaderMap& older = parent_->map();
  for (size_t i = first < end ? older.find(first) : 0; first < end; i++) {
    const PlacedRun& run = older.runs()[i];
    const uint64_t stop = std::min(end, older.end_of(i));
    MapRun out = {uint32_t(stop - first), 0, 0, 1, run.page_class, run.type, 0};
    if (run.chunk != kNoChunk) {
      const ImageReader::Place& place = parent_->place(run.chunk);
      out.source = ancestor_[place.source];
      out.chunk = place.chunk;
      out.slot = uint16_t(run.slot + (first - run.first));
    }
    coder_.add(out);
    first = stop;
  }
}

bool ImageWriter::encode_map(std::vector<uint8_t>* out, uint64_t* n_runs) {
  constexpr uint64_t kStepsACall = 1u << 14;
  const bool more = map_.walk(&map_cursor_, kStepsACall, [this](const PlacedPage& page) {
    fill_gap(map_next_, page.pfn);
    coder_.add({1, page.chunk, page.slot, 0, page.page_class, page.type, 0});
    map_next_ = page.pfn + 1;
  });
  if (!more) fill_gap(map_next_, nr_pfns_);
  *n_runs += coder_.code(lz4_, !more, out);
  return more;
}

void ImageWriter::content_root(ContentRoot* root) {
  const auto without = [&](uint64_t pfn) {
    if (!parent_ || pfn >= parent_->nr_pfns()) return;
    const PlacedRun& run = parent_->map().runs()[parent_->map().find(pfn)];
    root->remove(pfn, run.type, parent_->page_hash(run, pfn));
  };
  uint64_t cursor = 0;
  map_.walk(&cursor, ~0ull, [&](const PlacedPage& page) {
    pfn::Hash128 hash = {0, 0};
    if (class_has_body(page.page_class))
      hash = table_.notes()[page.chunk].page_hashes[page.slot];
    else if (page.page_class == kClassZero)
      hash = zero_page_hash();
    root->add(page.pfn, page.type, hash);
    without(page.pfn);
  });
  for (uint64_t pfn = nr_pfns_; pfn < parent_pfns_; pfn++) without(pfn);
}

bool ImageWriter::flush_tail(Fault* fault) {
  if (tail_bytes_ == 0) return true;
  const uint64_t offset = file_->reserve(tail_bytes_);
  if (!file_->write_at(offset, tail_.get(), tail_bytes_, fault)) return fail(fault);
  tail_bytes_ = 0;
  return true;
}

bool ImageWriter::write_tail(const uint8_t* bytes, uint64_t n, Fault* fault) {
  if (failed(fault)) return false;
  while (n > 0) {
    const uint64_t part = std::min(n, kTailBytes - tail_bytes_);
    std::memcpy(tail_.get() + tail_bytes_, bytes, part);
    tail_bytes_ += part;
    bytes += part;
    n -= part;
    if (tail_bytes_ == kTailBytes && !flush_tail(fault)) return false;
  }
  return true;
}

bool ImageWriter::publish(Fault* fault) {
  if (failed(fault) || !flush_tail(fault)) return false;
  return file_->publish(file_->reserved(), fault) || fail(fault);
}

}  // namespace dormouse::image
