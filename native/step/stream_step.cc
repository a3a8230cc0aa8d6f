#include "step/stream_step.h"

#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>

#include "step/page_batch.h"
#include "step/restore_step.h"

namespace dormouse::step {
namespace {

constexpr uint32_t kPageData = 1;
constexpr uint64_t kTypeMask = 0xFull << 60;

std::mutex output_lock;

struct RecordHead {
  uint32_t type, length, count, reserved;
  uint64_t pfns[kBatchPages];
};

bool write_failed(Fault* fault) {
  fault->sys_errno = errno;
  return fault->raise(errno == ENOSPC ? "NO_SPACE" : "IMAGE_WRITE_FAILED",
                      std::string("writing the stream: ") + std::strerror(errno));
}

bool write_all(int fd, iovec* parts, int n, Fault* fault) {
  while (n > 0) {
    const ssize_t wrote = writev(fd, parts, n);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return write_failed(fault);
    size_t left = size_t(wrote);
    while (n > 0 && left >= parts->iov_len) {
      left -= parts->iov_len;
      ++parts;
      --n;
    }
    if (n == 0) break;
    parts->iov_base = static_cast<uint8_t*>(parts->iov_base) + left;
    parts->iov_len -= left;
  }
  return true;
}

bool canonicalise_batch(const host::FrameMaps& maps, uint32_t n_bodies, PageBatch* batch,
                        Fault* fault) {
  for (uint32_t i = 0; i < n_bodies; ++i) {
    const int level = host::table_level(host::type_of(batch->body_entries[i]));
    if (level == 0) continue;
    uint8_t* page = batch->pages + uint64_t(i) * host::kPageSize;
    if (!canonicalise_body(maps, batch->pfns[i], level, page, fault)) return false;
  }
  return true;
}

}  // namespace

bool stream_step(host::DomainMemory& memory, int fd, uint64_t first, uint64_t count,
                 uint64_t* bytes, Fault* fault) {
  PageBatch& batch = thread_batch();
  const host::FrameMaps maps = memory.maps();
  RecordHead head;
  for (uint64_t done = 0; done < count;) {
    const uint32_t n = uint32_t(std::min<uint64_t>(kBatchPages, count - done));
    uint32_t bodies = 0;
    if (!read_batch(memory, first + done, n, &batch, &bodies, fault)) return false;
    if (!canonicalise_batch(maps, bodies, &batch, fault)) return false;
    for (uint32_t i = 0; i < n; ++i)
      head.pfns[i] = (first + done + i) | (batch.entries[i] & kTypeMask);
    const size_t head_bytes = 16 + 8ull * n, body_bytes = bodies * host::kPageSize;
    head.type = kPageData;
    head.length = uint32_t(head_bytes - 8 + body_bytes);
    head.count = n;
    head.reserved = 0;
    iovec parts[2] = {{&head, head_bytes}, {batch.pages, body_bytes}};
    {
      std::lock_guard<std::mutex> hold(output_lock);
      if (!write_all(fd, parts, bodies == 0 ? 1 : 2, fault)) return false;
    }
    *bytes += head_bytes + body_bytes;
    done += n;
  }
  return true;
}

bool localise_tables(host::DomainMemory& memory, const uint64_t* pfns, const uint8_t* levels,
                     uint64_t n, Fault* fault) {
  const host::FrameMaps maps = memory.maps();
  alignas(64) uint8_t canonical[host::kPageSize], table[host::kPageSize];
  for (uint64_t i = 0; i < n; ++i) {
    uint64_t entry = 0;
    if (!memory.query(pfns[i], 1, &entry, fault) ||
        !memory.copy_out(&pfns[i], &entry, 1, canonical, fault) ||
        !localise_body(maps, pfns[i], levels[i], canonical, table, fault) ||
        !memory.copy_in(&pfns[i], 1, table, fault))
      return false;
  }
  return true;
}

}  // namespace dormouse::step
