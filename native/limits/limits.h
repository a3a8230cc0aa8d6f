// What this machine can do at all: the figures a save or restore is held against. Each function
// repeats its work and keeps the best run, as the other processes of the machine only ever slow
// it. GB is 10^9 bytes.
#pragma once
#include <cstdint>
#include <string>

#include "fault.h"

namespace dormouse::limits {

// Page-aligned anonymous memory, present and writable; data() is null where there is none.
class Region {
 public:
  enum Pages { kSmallPages, kHugePages };
  explicit Region(uint64_t bytes, Pages pages = kHugePages);
  ~Region();
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
  uint8_t* data() const { return data_; }
  uint64_t bytes() const { return bytes_; }
  // Incompressible bytes that follow from the seed, no two 8-byte words alike.
  void fill_random(uint64_t seed);

 private:
  uint8_t* data_;
  uint64_t bytes_;
};

double now();

// Best of `runs` calls of work(), in seconds.
template <typename Work>
double best_seconds(int runs, Work work) {
  double best = 1e9;
  for (int i = 0; i < runs; i++) {
    const double start = now();
    work();
    const double took = now() - start;
    if (took < best) best = took;
  }
  return best;
}

struct MemoryLimits {
  double memcpy_gbps;
  double scattered_copy_us;  // per 4 KiB page, from random places to one buffer
  double zero_scan_gbps;     // over zero pages, which have no early out
  double hash_gbps;          // XXH3-128, page by page
};
// Takes two buffers of `bytes` each. False (NO_MEMORY) where they cannot be had.
bool measure_memory(uint64_t bytes, MemoryLimits* out, Fault* fault);

// Microseconds a page to first touch fresh anonymous memory of that size; negative without memory.
double first_touch_us(uint64_t bytes, Region::Pages pages);

// GB/s at which `threads` touch fresh memory of the embedded host's kind (a memfd, huge pages
// advised), a page at a time in shuffled order of 2 MiB pieces; 0 without memory.
double shared_first_touch_gbps(uint64_t bytes, int threads);

// canonicalise on level-1 tables in which every entry is present and valid. Frames are shuffled in
// windows of `window` frames; a window of nr_pfns is a fully random order. The tables map the pfns
// in order, as a kernel's direct map does, or shuffled likewise, as those of a process may.
double canonicalise_gbps(uint64_t nr_pfns, uint64_t window, bool pfns_in_order);

struct CodecLimits {
  double compress_gbps;    // of plain bytes in
  double decompress_gbps;  // of plain bytes out
  double stored_share;     // stored bytes by plain bytes
};
// LZ4 in 64 KiB blocks over `bytes` of data, spread over `threads`. A block that does not shrink is
// kept as it is, and then copied back.
CodecLimits measure_codec(const uint8_t* data, uint64_t bytes, int threads, int acceleration);

// O_DIRECT writes of 4 MiB one after the other, `in_flight` threads at once, into a new file of the
// directory that loses its name at once; fdatasync included. IMAGE_WRITE_FAILED, or OUTPUT_INVALID
// where the filesystem does not take O_DIRECT.
bool direct_write_gbps(const std::string& dir, uint64_t bytes, int in_flight, double* gbps,
                       Fault* fault);

}  // namespace dormouse::limits
