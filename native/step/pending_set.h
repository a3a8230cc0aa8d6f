// A set of pfns, one bit each: pages that the image does not hold as they are.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>

namespace dormouse::step {

// Functions may be called from several threads at once.
class PendingSet {
 public:
  // Every pfn is in it.
  explicit PendingSet(uint64_t nr_pfns);
  uint64_t nr_pfns() const { return nr_pfns_; }

  void add(uint64_t pfn) { words_[pfn / 64].fetch_or(1ull << pfn % 64); }
  void remove(uint64_t pfn) { words_[pfn / 64].fetch_and(~(1ull << pfn % 64)); }
  // Adds what is set in a bitmap of pfns [first, first + n); first is a multiple of 64. Bits past
  // its end are not looked at.
  void merge(uint64_t first, uint64_t n, const uint8_t* bitmap);
  void clear();
  void fill();

  // Lists the pfns of the set in [first, first + n), in order; `out` has room for n.
  uint32_t list(uint64_t first, uint32_t n, uint64_t* out) const;
  // The same, and takes them out of it.
  uint32_t take(uint64_t first, uint32_t n, uint64_t* out);

  uint64_t count() const;
  // Pfns of the set among the 64 from `first` on, a multiple of 64.
  uint32_t count_word(uint64_t first) const {
    return uint32_t(__builtin_popcountll(words_[first / 64].load(std::memory_order_relaxed)));
  }

 private:
  uint64_t mask(uint64_t word, uint64_t first, uint64_t end) const;

  const uint64_t nr_pfns_;
  std::unique_ptr<std::atomic<uint64_t>[]> words_;
};

}  // namespace dormouse::step
