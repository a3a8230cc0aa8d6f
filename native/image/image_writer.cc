#include "image/image_writer.h"

#include <algorithm>
#include <cstring>

#include "image/encode.h"

namespace dormouse::image {

static constexpr uint64_t kTailBytes = 1u << 20;

ImageWriter::ImageWriter(const WriterSetup& setup)
    : nr_pfns_(setup.nr_pfns), has_parent_(setup.has_parent), map_(setup.nr_pfns) {
  std::memcpy(image_id_, setup.header + 48, sizeof image_id_);
}

bool ImageWriter::start(const WriterSetup& setup, Fault* fault) {
  tail_ = allocate_aligned(kTailBytes);
  bool allocated = map_.allocated() && tail_;
  for (uint32_t i = 0; i < setup.lanes && allocated; i++) {
    lanes_.push_back(std::make_unique<Lane>(*file_, table_, map_, image_id_));
    allocated = lanes_.back()->allocate();
  }
  if (!allocated) return fault->raise("NO_MEMORY", "no memory for the image's lanes and page map");
  std::memcpy(tail_.get(), setup.header, kPageBytes);
  return file_->write_at(file_->reserve(kPageBytes), tail_.get(), kPageBytes, fault);
}

std::shared_ptr<ImageWriter> ImageWriter::create(const WriterSetup& setup, Fault* fault) {
  auto file = OutputFile::create(setup.path, setup.direct, setup.unnamed, fault);
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
  if (!check_pages({descs, n_pages, bodies, n_bodies}, nr_pfns_, has_parent_, fault))
    return fail(fault);
  return lanes_[lane]->append(descs, n_pages, bodies, fault) || fail(fault);
}

uint64_t ImageWriter::count(uint8_t page_class) const {
  int64_t sum = 0;
  for (const auto& lane : lanes_) sum += lane->counted(page_class);
  return uint64_t(std::max<int64_t>(sum, 0));
}

uint64_t ImageWriter::stored_pages() const {
  uint64_t sum = 0;
  for (const auto& lane : lanes_) sum += lane->pages();
  return sum;
}

uint64_t ImageWriter::stored_bodies() const {
  uint64_t sum = 0;
  for (const auto& lane : lanes_) sum += lane->bodies();
  return sum;
}

uint64_t ImageWriter::stored_bytes() const {
  uint64_t sum = file_->reserved();
  for (const auto& lane : lanes_) sum += lane->pending_bytes();
  return sum;
}

bool ImageWriter::finish(Fault* fault) {
  if (failed(fault)) return false;
  for (const auto& lane : lanes_)
    if (!lane->flush(fault)) return fail(fault);
  const uint64_t absent = map_.first_absent();
  if (absent == nr_pfns_) return true;
  fault->pfn = absent;
  fault->raise("ACCOUNTING_MISMATCH",
               "pfn " + std::to_string(absent) + " was never put into the image");
  return fail(fault);
}

bool ImageWriter::encode_map(std::vector<uint8_t>* out, uint64_t* n_runs) {
  return map_.encode_some(lz4_, out, n_runs);
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
