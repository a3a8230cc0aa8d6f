#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "limits/limits.h"
#include "pfn/canonicalise.h"
#include "pfn/page_scan.h"
#include "pfn/pte.h"

namespace dormouse::limits {
namespace {

constexpr uint64_t kPage = pfn::kPageSize;
constexpr int kRuns = 3;

// splitmix64.
struct Random {
  uint64_t state;
  uint64_t next() {
    uint64_t z = state += 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
  }
};

std::vector<uint64_t> shuffled(uint64_t n, uint64_t window, uint64_t seed) {
  std::vector<uint64_t> order(n);
  for (uint64_t i = 0; i < n; i++) order[i] = i;
  Random random{seed};
  for (uint64_t base = 0; base < n; base += window) {
    const uint64_t size = n - base < window ? n - base : window;
    for (uint64_t i = size - 1; i > 0; i--)
      std::swap(order[base + i], order[base + random.next() % (i + 1)]);
  }
  return order;
}

// Keeps a result alive, so that the work that made it is not optimised away.
void keep(uint64_t value) { __asm__ volatile("" : : "r"(value) : "memory"); }

double gbps(uint64_t bytes, double seconds) { return double(bytes) / seconds / 1e9; }

}  // namespace

double now() {
  timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return double(at.tv_sec) + double(at.tv_nsec) * 1e-9;
}

Region::Region(uint64_t bytes, Pages pages) : data_(nullptr), bytes_(bytes) {
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) return;
  madvise(at, bytes, pages == kHugePages ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  data_ = static_cast<uint8_t*>(at);
}

Region::~Region() {
  if (data_) munmap(data_, bytes_);
}

void Region::fill_random(uint64_t seed) {
  Random random{seed};
  auto* words = reinterpret_cast<uint64_t*>(data_);
  for (uint64_t i = 0; i < bytes_ / 8; i++) words[i] = random.next();
}

bool measure_memory(uint64_t bytes, MemoryLimits* out, Fault* fault) {
  Region from(bytes), to(bytes);
  if (!from.data() || !to.data()) return fault->raise("NO_MEMORY", "no memory for two buffers");
  from.fill_random(1);
  std::memset(to.data(), 0, bytes);
  const uint64_t pages = bytes / kPage;

  out->zero_scan_gbps = gbps(bytes, best_seconds(kRuns, [&] {
                               uint64_t zero = 0;
                               for (uint64_t i = 0; i < pages; i++)
                                 zero += pfn::is_zero_page(to.data() + i * kPage);
                               keep(zero);
                             }));
  out->hash_gbps = gbps(bytes, best_seconds(kRuns, [&] {
                          uint64_t sum = 0;
                          for (uint64_t i = 0; i < pages; i++)
                            sum ^= pfn::hash128(from.data() + i * kPage, kPage).low;
                          keep(sum);
                        }));
  out->memcpy_gbps = gbps(bytes, best_seconds(kRuns, [&] {
                            std::memcpy(to.data(), from.data(), bytes);
                            keep(to.data()[bytes / 2]);
                          }));
  const std::vector<uint64_t> order = shuffled(pages, pages, 2);
  const double scattered = best_seconds(kRuns, [&] {
    for (uint64_t i = 0; i < pages; i++)
      std::memcpy(to.data() + i * kPage, from.data() + order[i] * kPage, kPage);
    keep(to.data()[bytes / 2]);
  });
  out->scattered_copy_us = scattered * 1e6 / double(pages);
  return true;
}

double first_touch_us(uint64_t bytes, Region::Pages pages) {
  double best = -1;
  for (int run = 0; run < kRuns; run++) {
    Region fresh(bytes, pages);
    if (!fresh.data()) return -1;
    const double start = now();
    for (uint64_t at = 0; at < bytes; at += kPage)
      static_cast<volatile uint8_t*>(fresh.data())[at] = 1;
    const double took = (now() - start) * 1e6 / double(bytes / kPage);
    if (best < 0 || took < best) best = took;
  }
  return best;
}

double shared_first_touch_gbps(uint64_t bytes, int threads) {
  constexpr uint64_t kPiece = 2ull << 20;
  const std::vector<uint64_t> order = shuffled(bytes / kPiece, bytes / kPiece, 7);
  double best = -1;
  for (int run = 0; run < kRuns; run++) {
    const int fd = memfd_create("first-touch", MFD_CLOEXEC);
    if (fd < 0) return 0;
    void* at = ftruncate(fd, off_t(bytes)) == 0
                   ? mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0)
                   : MAP_FAILED;
    close(fd);
    if (at == MAP_FAILED) return 0;
    madvise(at, bytes, MADV_HUGEPAGE);
    std::atomic<uint64_t> next{0};
    const double start = now();
    std::vector<std::thread> workers;
    for (int t = 0; t < threads; t++)
      workers.emplace_back([&] {
        for (uint64_t i = next++; i < order.size(); i = next++)
          for (uint64_t page = 0; page < kPiece; page += kPage)
            static_cast<volatile uint8_t*>(at)[order[i] * kPiece + page] = 1;
      });
    for (std::thread& worker : workers) worker.join();
    const double took = now() - start;
    munmap(at, bytes);
    if (best < 0 || took < best) best = took;
  }
  return gbps(bytes, best);
}

double canonicalise_gbps(uint64_t nr_pfns, uint64_t window, bool pfns_in_order) {
  // The domain's frames lie above some of the machine's others, as they do under a control domain.
  constexpr uint64_t kBelow = 65536, kFlags = 0x8000000000000067;
  const std::vector<uint64_t> frames = shuffled(nr_pfns, window, 3);
  const std::vector<uint64_t> pfns = shuffled(nr_pfns, pfns_in_order ? 1 : window, 5);
  std::vector<uint64_t> p2m(nr_pfns), m2p(nr_pfns + kBelow, ~0ull);
  for (uint64_t pfn = 0; pfn < nr_pfns; pfn++) {
    p2m[pfn] = frames[pfn] + kBelow;
    m2p[p2m[pfn]] = pfn;
  }
  const pfn::FrameMaps maps = {p2m.data(), nr_pfns, m2p.data(), m2p.size()};
  Region tables(nr_pfns * 8), out(nr_pfns * 8);
  if (!tables.data() || !out.data()) return 0;
  auto* src = reinterpret_cast<uint64_t*>(tables.data());
  auto* dst = reinterpret_cast<uint64_t*>(out.data());
  for (uint64_t i = 0; i < nr_pfns; i++) src[i] = p2m[pfns[i]] << pfn::kFrameShift | kFlags;

  const double took = best_seconds(9, [&] {
    for (uint64_t i = 0; i < nr_pfns; i += pfn::kTableEntries)
      keep(pfn::canonicalise(maps, 1, src + i, dst + i).present);
  });
  // Every entry must have been translated, or the time means nothing.
  for (uint64_t i = 0; i < nr_pfns; i++)
    if (dst[i] != (pfns[i] << pfn::kFrameShift | kFlags)) return 0;
  return gbps(nr_pfns * 8, took);
}

}  // namespace dormouse::limits
