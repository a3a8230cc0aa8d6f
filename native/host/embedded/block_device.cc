#include "host/embedded/block_device.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "host/embedded/grants.h"

namespace dormouse::embedded {

bool BlockDevice::open(Fault* fault) {
  if (fd_ >= 0) return true;
  fd_ = ::open(options_.path.c_str(), (options_.writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
  const off_t bytes = fd_ < 0 ? -1 : lseek(fd_, 0, SEEK_END);
  if (bytes < 0) {
    fault->sys_errno = errno;
    let_go();
    return fault->raise("CONFIG_INVALID", "cannot open the disk " + options_.path);
  }
  const uint64_t sectors = uint64_t(bytes) / kSectorBytes;
  if (bytes > 0 && bytes % kPageSize == 0 && (sectors_ == 0 || sectors_ == sectors)) {
    sectors_ = sectors;
    return true;
  }
  let_go();
  if (sectors_ == 0)
    return fault->raise("CONFIG_INVALID",
                        "the disk " + options_.path + " has no whole number of 4096-byte pages");
  return fault->raise("DOMAIN_WRONG_STATE",
                      "the disk " + options_.path + " has another size than it had");
}

void BlockDevice::let_go() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

void BlockDevice::attach(uint32_t ring_ref) {
  join();
  ring_ref_ = ring_ref;
  {
    GrantAccess grants(domain_);
    if (const auto* ring = reinterpret_cast<const BlkRing*>(grants.to_read(ring_ref)))
      req_cons_ = __atomic_load_n(&ring->rsp_prod, __ATOMIC_ACQUIRE);
  }
  start();
}

// --- the thread

bool BlockDevice::serve_once() {
  std::vector<Taken> taken;
  if (!take(&taken)) return false;
  if (taken.empty()) return true;
  carry_out_all(&taken);
  if (!wait_to_answer() || !answer(taken)) return false;
  kick();  // more may have come meanwhile
  return true;
}

// False for a ring that cannot be: nothing more is taken from it.
bool BlockDevice::take(std::vector<Taken>* taken) {
  taken->clear();
  GrantAccess grants(domain_);
  auto* ring = reinterpret_cast<BlkRing*>(grants.to_write(ring_ref_));
  if (!ring) return false;
  const uint32_t prod = __atomic_load_n(&ring->req_prod, __ATOMIC_ACQUIRE);
  if (prod - req_cons_ > kRingEntries) return false;
  for (; req_cons_ != prod; req_cons_++) {
    taken->emplace_back();
    std::memcpy(&taken->back().request, &ring->ring[req_cons_ % kRingEntries], sizeof(BlkRequest));
  }
  // From the next request on the frontend says so; one that came meanwhile is seen here.
  __atomic_store_n(&ring->req_event, req_cons_ + 1, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&ring->req_prod, __ATOMIC_SEQ_CST) != req_cons_) kick();
  return true;
}

void BlockDevice::carry_out_all(std::vector<Taken>* taken) {
  const uint64_t order_of = seed();
  std::vector<size_t> order(taken->size());
  for (size_t i = 0; i < order.size(); i++) order[i] = i;
  for (size_t i = order.size(); order_of != 0 && i > 1; i--)
    std::swap(order[i - 1], order[draw(order_of) % i]);
  for (const size_t i : order) (*taken)[i].status = carry_out((*taken)[i].request);
}

int16_t BlockDevice::carry_out(const BlkRequest& request) {
  if (request.operation == kBlkFlush)
    return options_.writable && fdatasync(fd_) != 0 ? kBlkError : kBlkOkay;
  if (request.operation != kBlkRead && request.operation != kBlkWrite) return kBlkUnknown;
  if (request.nr_segments == 0 || request.nr_segments > kRingSegments) return kBlkError;
  uint64_t sector = request.sector_number;
  for (uint32_t i = 0; i < request.nr_segments; i++) {
    const BlkSegment& segment = request.seg[i];
    if (segment.last_sect >= kPageSectors || segment.first_sect > segment.last_sect)
      return kBlkError;
    const uint64_t count = segment.last_sect - segment.first_sect + 1u;
    if (sector >= sectors_ || count > sectors_ - sector || !move_segment(request, i, sector))
      return kBlkError;
    sector += count;
  }
  return kBlkOkay;
}

bool BlockDevice::move_segment(const BlkRequest& request, uint32_t index, uint64_t sector) {
  const BlkSegment& segment = request.seg[index];
  const uint64_t bytes = (segment.last_sect - segment.first_sect + 1u) * kSectorBytes;
  const uint64_t inside = segment.first_sect * kSectorBytes;
  const off_t at = off_t(sector * kSectorBytes);
  uint8_t buffer[kPageSize];
  if (request.operation == kBlkWrite) {
    {
      GrantAccess grants(domain_);
      const uint8_t* page = grants.to_read(segment.gref);
      if (!page) return false;
      std::memcpy(buffer, page + inside, bytes);
    }
    return pwrite(fd_, buffer, bytes, at) == ssize_t(bytes);
  }
  if (pread(fd_, buffer, bytes, at) != ssize_t(bytes)) return false;
  GrantAccess grants(domain_);
  uint8_t* page = grants.to_write(segment.gref);
  if (!page) return false;
  std::memcpy(page + inside, buffer, bytes);
  return true;
}

bool BlockDevice::answer(const std::vector<Taken>& taken) {
  bool wanted;
  {
    GrantAccess grants(domain_);
    for (const Taken& one : taken)
      for (uint32_t i = 0; one.request.operation == kBlkRead && i < one.request.nr_segments; i++)
        if (i < kRingSegments) grants.unmap(one.request.seg[i].gref);
    auto* ring = reinterpret_cast<BlkRing*>(grants.to_write(ring_ref_));
    if (!ring) return false;
    const uint32_t old = ring->rsp_prod;
    uint32_t prod = old;
    for (const Taken& one : taken) {
      BlkResponse& response = ring->ring[prod++ % kRingEntries].rsp;
      response.id = one.request.id;
      response.operation = one.request.operation;
      response.status = one.status;
    }
    __atomic_store_n(&ring->rsp_prod, prod, __ATOMIC_SEQ_CST);
    wanted = ring_wants_notice(old, prod, __atomic_load_n(&ring->rsp_event, __ATOMIC_SEQ_CST));
  }
  if (wanted) notify_guest();
  return true;
}

}  // namespace dormouse::embedded
