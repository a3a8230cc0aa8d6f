#include "image/content_root.h"

#include "host/host.h"

namespace dormouse::image {

namespace {

struct Part {
  uint64_t pfn_and_type;
  uint64_t half;
  pfn::Hash128 hash;
};

// 256 bits: two hashes of the same, told apart by `half`.
void summand(uint64_t pfn, uint8_t type, const pfn::Hash128& hash, uint64_t out[4]) {
  for (uint64_t half = 0; half < 2; half++) {
    const Part part = {pfn | uint64_t(type) << 60, half, hash};
    const pfn::Hash128 made = pfn::hash128(&part, sizeof part);
    out[2 * half] = made.low;
    out[2 * half + 1] = made.high;
  }
}

}  // namespace

void ContentRoot::add(uint64_t pfn, uint8_t type, const pfn::Hash128& hash) {
  if (type == host::kXtab) return;
  uint64_t more[4];
  summand(pfn, type, hash, more);
  uint64_t carry = 0;
  for (int i = 0; i < 4; i++) {
    const __uint128_t sum = __uint128_t(words[i]) + more[i] + carry;
    words[i] = uint64_t(sum);
    carry = uint64_t(sum >> 64);
  }
}

void ContentRoot::remove(uint64_t pfn, uint8_t type, const pfn::Hash128& hash) {
  if (type == host::kXtab) return;
  uint64_t less[4];
  summand(pfn, type, hash, less);
  uint64_t borrow = 0;
  for (int i = 0; i < 4; i++) {
    const __uint128_t difference = __uint128_t(words[i]) - less[i] - borrow;
    words[i] = uint64_t(difference);
    borrow = uint64_t(difference >> 64) & 1;
  }
}

const pfn::Hash128& zero_page_hash() {
  alignas(64) static const uint8_t page[4096] = {};
  static const pfn::Hash128 hash = pfn::hash128(page, sizeof page);
  return hash;
}

}  // namespace dormouse::image
