// The walk to a PV guest's p2m over frames that the fuzzer fills: the guest is hostile, and its
// tables may lead anywhere, in circles too.
#include "host/xen/p2m_walk.h"

#include "fuzz/input.h"

namespace {

using namespace dormouse;
using namespace dormouse::xen;
using fuzz::Input;
using fuzz::require;

constexpr uint64_t kFrames = 12;

// Small frames: entries lead to few frames, so that walks get far. A frame may change between two
// reads.
class AnyFrames : public FrameReader {
 public:
  explicit AnyFrames(Input* in) : in_(in), salt_(in->number<uint64_t>()) {}

  bool read(uint64_t mfn, uint64_t out[512], Fault* fault) override {
    reads++;
    require(mfn != 0 && mfn <= kFrames, "a frame beyond the machine is read");
    const uint8_t kind = in_->number<uint8_t>();
    if (kind == 255) return fault->raise("GUEST_MEMORY_UNREADABLE", "it is gone");
    for (uint64_t i = 0; i < 512; i++)
      out[i] = entry((i * 0x9E3779B97F4A7C15ull) ^ salt_ ^ (kind < 128 ? mfn : kind));
    for (int i = kind % 4; i > 0; i--) out[in_->number<uint16_t>() % 512] = in_->number<uint64_t>();
    return true;
  }

  bool plain = false;  // MFNs instead of page table entries
  uint64_t reads = 0;

 private:
  uint64_t entry(uint64_t bits) const {
    const uint64_t mfn = 1 + (bits >> 32) % kFrames;
    return plain ? mfn : mfn << 12 | 1 | (bits & 0xF000000000000000ull);
  }

  Input* in_;
  uint64_t salt_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  Input in(data, bytes);
  const uint8_t mode = in.number<uint8_t>();
  P2mAnchor anchor;
  anchor.max_pfn = mode & 1 ? in.number<uint64_t>() : in.number<uint16_t>() * 33ull;
  anchor.frame_list_list = in.number<uint8_t>() % (kFrames + 2);
  anchor.p2m_cr3 = mode & 2 ? 0 : (in.number<uint8_t>() % (kFrames + 2)) << 12;
  anchor.p2m_vaddr = mode & 4 ? in.number<uint64_t>() : in.number<uint32_t>() * 4096ull;
  if (mode & 8) anchor.p2m_vaddr |= 0xFFFF000000000000ull;
  const P2mLimits limits = {kFrames, mode & 16 ? 1ull << 18 : 1ull << 14};
  AnyFrames frames(&in);
  frames.plain = anchor.p2m_cr3 == 0;
  P2mLeaves leaves;
  Fault fault;
  const bool good = find_p2m_leaves(anchor, limits, frames, &leaves, &fault);
  require(good != bool(fault), "a fault is raised exactly where there is one");
  // Four tables a leaf at most, or the lists of the tree.
  require(frames.reads <= 4 * (limits.nr_pfns_cap / 512 + 1), "more reads than leaves allow");
  if (!good) return 0;
  require(!leaves.mfns.empty() && leaves.nr_pfns > 0, "a p2m of nothing");
  require(leaves.nr_pfns <= leaves.mfns.size() * kEntriesPerLeaf, "pfns without a leaf");
  require(leaves.mfns.size() * kEntriesPerLeaf <= limits.nr_pfns_cap + kEntriesPerLeaf, "too many");
  for (const uint64_t mfn : leaves.mfns) require(mfn != 0 && mfn <= kFrames, "a foreign leaf");
  return 0;
}
