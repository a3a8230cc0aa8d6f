#include "step/pending_set.h"

#include <algorithm>
#include <cstring>

namespace dormouse::step {
namespace {

uint64_t words_of(uint64_t n) { return (n + 63) / 64; }

uint32_t list_bits(uint64_t bits, uint64_t base, uint64_t* out) {
  uint32_t n = 0;
  for (; bits != 0; bits &= bits - 1) out[n++] = base + uint64_t(__builtin_ctzll(bits));
  return n;
}

}  // namespace

PendingSet::PendingSet(uint64_t nr_pfns)
    : nr_pfns_(nr_pfns), words_(new std::atomic<uint64_t>[words_of(nr_pfns)]) {
  fill();
}

void PendingSet::fill() {
  for (uint64_t w = 0; w < words_of(nr_pfns_); ++w) words_[w] = mask(w, 0, nr_pfns_);
}

// Bits of that word which are pfns of [first, end).
uint64_t PendingSet::mask(uint64_t word, uint64_t first, uint64_t end) const {
  const uint64_t base = word * 64;
  const uint64_t low = first > base ? first - base : 0;
  const uint64_t high = std::min<uint64_t>(end, base + 64) - base;
  return (high == 64 ? ~0ull : (1ull << high) - 1) & (~0ull << low);
}

void PendingSet::merge(uint64_t first, uint64_t n, const uint8_t* bitmap) {
  for (uint64_t done = 0; done < n; done += 64) {
    uint64_t bits = 0;
    const uint64_t left = std::min<uint64_t>(64, n - done);
    std::memcpy(&bits, bitmap + done / 8, (left + 7) / 8);
    const uint64_t word = (first + done) / 64;
    bits &= mask(word, first, first + n);
    if (bits) words_[word].fetch_or(bits);
  }
}

void PendingSet::clear() {
  for (uint64_t w = 0; w < words_of(nr_pfns_); ++w) words_[w] = 0;
}

uint32_t PendingSet::list(uint64_t first, uint32_t n, uint64_t* out) const {
  uint32_t found = 0;
  const uint64_t end = first + n;
  for (uint64_t w = first / 64; w < words_of(end); ++w)
    found += list_bits(words_[w].load(std::memory_order_relaxed) & mask(w, first, end), w * 64,
                       out + found);
  return found;
}

uint32_t PendingSet::take(uint64_t first, uint32_t n, uint64_t* out) {
  uint32_t found = 0;
  const uint64_t end = first + n;
  for (uint64_t w = first / 64; w < words_of(end); ++w) {
    const uint64_t wanted = mask(w, first, end);
    found += list_bits(words_[w].fetch_and(~wanted) & wanted, w * 64, out + found);
  }
  return found;
}

uint64_t PendingSet::count() const {
  uint64_t sum = 0;
  for (uint64_t w = 0; w < words_of(nr_pfns_); ++w)
    sum += uint64_t(__builtin_popcountll(words_[w].load(std::memory_order_relaxed)));
  return sum;
}

}  // namespace dormouse::step
