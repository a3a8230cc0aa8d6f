#include "step/pieces.h"

#include <algorithm>

namespace dormouse::step {
namespace {

constexpr uint64_t kUnit = 64;      // pfns of a word of the pending set
constexpr uint64_t kHolesCost = 1;  // of a unit without frames, in pages

}  // namespace

std::vector<Piece> cut_pieces(const host::DomainMemory& memory, uint64_t nr_pfns, uint64_t pages,
                              const PendingSet* pending) {
  std::vector<Piece> out;
  uint64_t cost = pages;  // of the last piece: full
  uint64_t present = 0;
  for (uint64_t first = 0; first < nr_pfns; first += kUnit) {
    const uint64_t end = std::min(first + kUnit, nr_pfns);
    const uint64_t wanted = pending ? pending->count_word(first) : end - first;
    if (wanted == 0) continue;
    if (present < end) present = memory.next_present(first);
    if (cost >= pages) {
      out.push_back({first, 0});
      cost = 0;
    }
    cost += present >= end ? kHolesCost : wanted;
    out.back().count = end - out.back().first;
  }
  return out;
}

}  // namespace dormouse::step
