// Where a 64-bit PV guest keeps its p2m: the MFNs of the frames that hold its leaf level. Pure
// walking over frames that somebody else reads; the guest is hostile and may be writing meanwhile.
#pragma once
#include <cstdint>
#include <vector>

#include "fault.h"

namespace dormouse::xen {

constexpr uint64_t kEntriesPerLeaf = 512;

// The fields of shared_info.arch, copied once.
struct P2mAnchor {
  uint64_t max_pfn = 0;  // number of valid entries
  uint64_t frame_list_list = 0;
  uint64_t p2m_cr3 = 0;
  uint64_t p2m_vaddr = 0;
  uint64_t generation = 0;
};

// Copies one frame of the guest. On false the fault says why.
class FrameReader {
 public:
  virtual ~FrameReader() = default;
  virtual bool read(uint64_t mfn, uint64_t out[512], Fault* fault) = 0;
};

struct P2mLeaves {
  std::vector<uint64_t> mfns;
  uint64_t nr_pfns = 0;
};

// Limits on what is believed: MFNs at or below max_mfn, at most nr_pfns_cap entries.
struct P2mLimits {
  uint64_t max_mfn;
  uint64_t nr_pfns_cap;
};

// By the linear list where the guest has one, else by the three-level tree. A tail of equal leaves
// (pfns the guest has no frames for) is cut to one. GUEST_MEMORY_UNREADABLE where the p2m is not
// one.
bool find_p2m_leaves(const P2mAnchor& anchor, const P2mLimits& limits, FrameReader& reader,
                     P2mLeaves* leaves, Fault* fault);
bool walk_linear_list(const P2mAnchor& anchor, const P2mLimits& limits, FrameReader& reader,
                      P2mLeaves* leaves, Fault* fault);
bool walk_tree(const P2mAnchor& anchor, const P2mLimits& limits, FrameReader& reader,
               P2mLeaves* leaves, Fault* fault);

}  // namespace dormouse::xen
