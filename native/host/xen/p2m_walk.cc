#include "host/xen/p2m_walk.h"

#include <cinttypes>
#include <cstdio>

namespace dormouse::xen {
namespace {

constexpr uint64_t kFrameMask = ((1ull << 52) - 1) & ~0xFFFull;
constexpr uint64_t kPresent = 1;
constexpr uint64_t kSuperpage = 1 << 7;
// The part of the address space that is Xen's own in a 64-bit PV guest.
constexpr uint64_t kXenStart = 0xFFFF800000000000ull, kXenEnd = 0xFFFF880000000000ull;

bool bad(Fault* fault, const char* what, uint64_t value) {
  char text[120];
  std::snprintf(text, sizeof text, "the guest's p2m cannot be found: %s 0x%" PRIx64, what, value);
  return fault->raise("GUEST_MEMORY_UNREADABLE", text);
}

bool is_canonical(uint64_t address) {
  const uint64_t high = address >> 47;
  return high == 0 || high == 0x1FFFF;
}

bool check_size(const P2mAnchor& anchor, const P2mLimits& limits, Fault* fault) {
  if (anchor.max_pfn == 0) return bad(fault, "it has not published one, max_pfn", 0);
  if (anchor.max_pfn > limits.nr_pfns_cap) return bad(fault, "too large: max_pfn", anchor.max_pfn);
  return true;
}

// A tail of at least two equal leaves stands for pfns without frames: one of them is enough.
void finish(const P2mAnchor& anchor, P2mLeaves* leaves) {
  auto& mfns = leaves->mfns;
  const size_t before = mfns.size();
  while (mfns.size() > 1 && mfns[mfns.size() - 2] == mfns.back()) mfns.pop_back();
  leaves->nr_pfns =
      mfns.size() == before ? anchor.max_pfn : uint64_t(mfns.size()) * kEntriesPerLeaf;
}

// The tables of one walk, each level's last one kept: neighbours share them.
class TableWalk {
 public:
  TableWalk(uint64_t root, uint64_t max_mfn, FrameReader& reader)
      : root_(root), max_mfn_(max_mfn), reader_(reader) {}

  bool translate(uint64_t address, uint64_t* mfn, Fault* fault) {
    uint64_t frame = root_;
    for (int level = 4; level >= 1; --level) {
      if (!load(level, frame, fault)) return false;
      const uint64_t entry = tables_[level][(address >> (12 + 9 * (level - 1))) & 511];
      if (!(entry & kPresent)) return bad(fault, "not mapped at", address);
      if (level > 1 && (entry & kSuperpage)) return bad(fault, "superpage at", address);
      frame = (entry & kFrameMask) >> 12;
      if (frame == 0 || frame > max_mfn_) return bad(fault, "frame beyond the machine", frame);
    }
    *mfn = frame;
    return true;
  }

 private:
  bool load(int level, uint64_t frame, Fault* fault) {
    if (loaded_[level] == frame) return true;
    loaded_[level] = 0;
    if (!reader_.read(frame, tables_[level], fault)) return false;
    loaded_[level] = frame;
    return true;
  }

  uint64_t root_, max_mfn_;
  FrameReader& reader_;
  uint64_t loaded_[5] = {};
  uint64_t tables_[5][512];
};

}  // namespace

bool walk_linear_list(const P2mAnchor& anchor, const P2mLimits& limits, FrameReader& reader,
                      P2mLeaves* leaves, Fault* fault) {
  if (!check_size(anchor, limits, fault)) return false;
  const uint64_t root = anchor.p2m_cr3 >> 12;
  if (root == 0 || root > limits.max_mfn) return bad(fault, "p2m_cr3", anchor.p2m_cr3);
  const uint64_t n = (anchor.max_pfn + kEntriesPerLeaf - 1) / kEntriesPerLeaf;
  const uint64_t first = anchor.p2m_vaddr, last = first + n * 4096 - 1;
  if (first % 4096 != 0 || last < first || !is_canonical(first) || !is_canonical(last) ||
      (first < kXenEnd && last >= kXenStart) || (first >> 63) != (last >> 63))
    return bad(fault, "p2m_vaddr", first);
  TableWalk walk(root, limits.max_mfn, reader);
  leaves->mfns.resize(n);
  for (uint64_t i = 0; i < n; ++i)
    if (!walk.translate(first + i * 4096, &leaves->mfns[i], fault)) return false;
  finish(anchor, leaves);
  return true;
}

bool walk_tree(const P2mAnchor& anchor, const P2mLimits& limits, FrameReader& reader,
               P2mLeaves* leaves, Fault* fault) {
  if (!check_size(anchor, limits, fault)) return false;
  const uint64_t n = (anchor.max_pfn + kEntriesPerLeaf - 1) / kEntriesPerLeaf;
  const uint64_t n_lists = (n + 511) / 512;
  if (n_lists > 512) return bad(fault, "too large for the tree: max_pfn", anchor.max_pfn);
  if (anchor.frame_list_list == 0 || anchor.frame_list_list > limits.max_mfn)
    return bad(fault, "pfn_to_mfn_frame_list_list", anchor.frame_list_list);
  uint64_t top[512], list[512];
  if (!reader.read(anchor.frame_list_list, top, fault)) return false;
  leaves->mfns.clear();
  for (uint64_t i = 0; i < n_lists; ++i) {
    if (top[i] == 0 || top[i] > limits.max_mfn) return bad(fault, "frame list", top[i]);
    if (!reader.read(top[i], list, fault)) return false;
    for (uint64_t j = 0; j < 512 && leaves->mfns.size() < n; ++j) {
      if (list[j] == 0 || list[j] > limits.max_mfn) return bad(fault, "leaf frame", list[j]);
      leaves->mfns.push_back(list[j]);
    }
  }
  finish(anchor, leaves);
  return true;
}

bool find_p2m_leaves(const P2mAnchor& anchor, const P2mLimits& limits, FrameReader& reader,
                     P2mLeaves* leaves, Fault* fault) {
  return anchor.p2m_cr3 != 0 ? walk_linear_list(anchor, limits, reader, leaves, fault)
                             : walk_tree(anchor, limits, reader, leaves, fault);
}

}  // namespace dormouse::xen
