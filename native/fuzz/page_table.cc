// Every SIMD kernel against the scalar reference, on tables and maps that the fuzzer makes.
#include <initializer_list>

#include "fuzz/input.h"
#include "pfn/kernels.h"
#include "pfn/pte.h"

namespace {

using namespace dormouse;
using fuzz::Fenced;
using fuzz::Input;
using fuzz::require;

constexpr uint64_t kMost = 64;  // entries of a map: small, so that bounds are met often

// A value near one of the bounds, or any value at all.
uint64_t map_entry(Input* in, uint64_t bound) {
  const uint8_t kind = in->number<uint8_t>();
  if (kind < 160) return kind % (bound + 2);
  if (kind < 170) return ~0ull;
  if (kind < 180) return (1ull << (kind % 64)) | (kind % 3);
  return in->number<uint64_t>();
}

// Makes p2m and m2p agree wherever they can, as most of a real domain's do.
void agree(Input* in, uint64_t* p2m, uint64_t nr_pfns, uint64_t* m2p, uint64_t nr_mfns) {
  for (uint64_t pfn = 0; pfn < nr_pfns && pfn < nr_mfns; pfn++) {
    const uint64_t mfn = (pfn * 7 + 3) % nr_mfns;
    p2m[pfn] = mfn | uint64_t(in->number<uint8_t>()) << 56;
    m2p[mfn] = pfn;
  }
}

void fill_table(Input* in, uint64_t nr, uint64_t* table) {
  for (int i = 0; i < pfn::kTableEntries; i++) {
    const uint8_t kind = in->number<uint8_t>();
    if (kind < 64)
      table[i] = 0;
    else if (kind < 224)
      table[i] = (kind % (nr + 1)) << pfn::kFrameShift | uint64_t(kind) << 52 | pfn::kPtePresent;
    else
      table[i] = in->number<uint64_t>();
  }
}

bool same(const pfn::TableResult& a, const pfn::TableResult& b) {
  return a.fault == b.fault && a.index == b.index && a.entry == b.entry && a.present == b.present;
}

void compare(const pfn::FrameMaps& maps, int level, const uint64_t* src, uint64_t* dst) {
  constexpr size_t kBytes = pfn::kTableEntries * 8;
  uint64_t want[pfn::kTableEntries];
  for (const bool to_pfns : {true, false}) {
    const auto& scalar = pfn::kScalarKernels;
    const auto reference =
        (to_pfns ? scalar.canonicalise : scalar.localise)(maps, level, src, want);
    for (const char* name : {"avx2", "avx512"}) {
      const pfn::Kernels* set = pfn::kernels_named(name);
      if (!set) continue;
      const auto kernel = to_pfns ? set->canonicalise : set->localise;
      require(same(kernel(maps, level, src, dst), reference), "another result than the reference");
      const bool good = reference.fault == pfn::TableFault::none;
      if (good) require(std::memcmp(dst, want, kBytes) == 0, "another table than the reference");
      std::memcpy(dst, src, kBytes);
      require(same(kernel(maps, level, dst, dst), reference), "another result in place");
      if (good) require(std::memcmp(dst, want, kBytes) == 0, "another table in place");
    }
  }
}

// What was canonicalised becomes what it was, but for the slots that are Xen's own; and of a guest
// that was stopped anywhere, too, though where it maps pages that Xen lent it in that guest only.
void round_trip(const pfn::FrameMaps& maps, int level, const uint64_t* src) {
  uint64_t canonical[pfn::kTableEntries], back[pfn::kTableEntries];
  for (const auto to_pfns : {pfn::canonicalise, pfn::canonicalise_running}) {
    if (to_pfns(maps, level, src, canonical).fault != pfn::TableFault::none) continue;
    bool lent = false;
    for (int i = 0; i < pfn::kTableEntries; i++)
      lent = lent || ((canonical[i] & pfn::kPtePresent) &&
                      (canonical[i] & pfn::kPteFrame) >> pfn::kFrameShift >= maps.nr_pfns);
    require(!lent || to_pfns == pfn::canonicalise_running, "a frame that is no pfn");
    const auto result = pfn::localise(maps, level, canonical, back);
    require((result.fault == pfn::TableFault::none) == !lent, "it cannot be localised");
    const auto again = pfn::localise_running(maps, level, canonical, back);
    require(again.fault == pfn::TableFault::none, "it cannot be localised in its domain");
    for (int i = 0; i < pfn::kTableEntries; i++) {
      const bool xen = level == 4 && i >= pfn::kXenSlotFirst && i < pfn::kXenSlotEnd;
      require(back[i] == (xen ? 0 : src[i]), "another entry than before");
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  static const Fenced p2m_memory(kMost * 8), m2p_memory(kMost * 8);
  static const Fenced src_memory(pfn::kTableEntries * 8), dst_memory(pfn::kTableEntries * 8);
  Input in(data, bytes);
  const int level = 1 + in.number<uint8_t>() % 4;
  const uint64_t nr_pfns = in.number<uint8_t>() % (kMost + 1);
  const uint64_t nr_mfns = in.number<uint8_t>() % (kMost + 1);
  const bool honest = in.number<uint8_t>() % 4 != 0;
  uint64_t* const p2m = p2m_memory.last_words(nr_pfns);
  uint64_t* const m2p = m2p_memory.last_words(nr_mfns);
  for (uint64_t i = 0; i < nr_pfns; i++) p2m[i] = honest ? ~0ull : map_entry(&in, nr_mfns);
  for (uint64_t i = 0; i < nr_mfns; i++) m2p[i] = honest ? ~0ull : map_entry(&in, nr_pfns);
  if (honest) agree(&in, p2m, nr_pfns, m2p, nr_mfns);
  uint64_t* const src = src_memory.last_words(pfn::kTableEntries);
  fill_table(&in, nr_mfns, src);
  compare({p2m, nr_pfns, m2p, nr_mfns}, level, src, dst_memory.last_words(pfn::kTableEntries));
  round_trip({p2m, nr_pfns, m2p, nr_mfns}, level, src);
  return 0;
}
