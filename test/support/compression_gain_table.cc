// When blocks are compressed and when not, by measured times that are made up. Prints what is not
// as expected, and ends with 1.
#include <cstdio>

#include "image/compression_gain.h"

using dormouse::image::CompressionGain;

namespace {

constexpr uint32_t kSaved = 40000;  // of a block of 65536

struct Case {
  const char* what;
  double disk_ns_per_byte;  // 0: nobody says
  uint32_t saved;
  uint64_t ns;  // to compress a block
  uint32_t blocks;
  uint32_t tried;  // of them
};

constexpr Case kCases[] = {
    {"a slow disk: always", 10, kSaved, 100000, 4000, 4000},
    {"a fast disk: given up after 16, then after 64, 128, ...", 0.2, kSaved, 100000, 16 + 64 + 16,
     32},
    {"for ever longer, up to 1024", 0.2, kSaved, 100000, 6 * 16 + 64 + 128 + 256 + 512 + 1024, 96},
    {"it never ends for good", 0.2, kSaved, 100000, 100000, 16 * 100},
    {"nothing saved: given up on any disk", 10, 0, 10000, 16 + 64, 16},
    {"unknown: 500 MB/s, well compressible", 0, kSaved, 70000, 4000, 4000},
    {"unknown: 500 MB/s, hardly compressible", 0, 4000, 70000, 16 + 64, 16},
};

uint32_t tried_of(const Case& c) {
  CompressionGain gain;
  if (c.disk_ns_per_byte != 0) gain.wrote(1000000, uint64_t(c.disk_ns_per_byte * 1000000));
  uint32_t tried = 0;
  for (uint32_t i = 0; i < c.blocks; i++) {
    if (!gain.worth_trying()) continue;
    gain.tried(c.saved, c.ns);
    tried++;
  }
  return tried;
}

// A disk that becomes slow is noticed at the next try, and what was given up is compressed again.
bool comes_back() {
  CompressionGain gain;
  gain.wrote(1000, 100);
  for (uint32_t i = 0; i < CompressionGain::kTries; i++) gain.tried(kSaved, 100000);
  gain.wrote(1000, 10000);
  for (uint32_t i = 0; i < CompressionGain::kFirstRest; i++)
    if (gain.worth_trying()) return false;
  for (uint32_t i = 0; i < 1000; i++) {
    if (!gain.worth_trying()) return false;
    gain.tried(kSaved, 100000);
  }
  return true;
}

}  // namespace

int main() {
  bool good = comes_back();
  if (!good) std::printf("a disk that became slow is not noticed\n");
  for (const Case& c : kCases) {
    const uint32_t tried = tried_of(c);
    // Of the long case the last round may be cut off.
    if (tried == c.tried || (c.blocks == 100000 && tried > c.tried - 80 && tried < c.tried + 80))
      continue;
    std::printf("%s: %u tried, not %u\n", c.what, tried, c.tried);
    good = false;
  }
  return good ? 0 : 1;
}
