// What a hypervisor tells and gives of a domain's frames. KeptMemory makes a DomainMemory of it.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "fault.h"

namespace dormouse::host {

// Frames in one stretch of address space, read-only; unmapped with the object.
class Mapping {
 public:
  virtual ~Mapping() = default;
  virtual const uint8_t* data() const = 0;
};

// "Frame" is what the hypervisor takes for one: a pfn of a translated domain (PVH, HVM), else a
// machine frame. But for refresh_p2m() all may be called from several threads at once.
class FrameSource {
 public:
  virtual ~FrameSource() = default;

  virtual bool translated() const = 0;
  // Pages that the domain has, mapped ones which it gave back included, and, of a translated
  // domain, the size of its pfn space.
  virtual bool size(uint64_t* total_pages, uint64_t* nr_pfns, Fault* fault) = 0;
  // Page types of frames[0, n), n at most 1024; kNoMfn gives kXtab.
  virtual bool types(const uint64_t* frames, uint32_t n, uint8_t* out, Fault* fault) = 0;
  // Maps frames[0, n); errors[i] is not 0 where page i must not be touched. Null where nothing
  // could be mapped.
  virtual std::unique_ptr<Mapping> map(const uint64_t* frames, uint32_t n, int* errors,
                                       Fault* fault) = 0;

  // The rest is of a domain that is not translated: its own p2m, as it is now.
  virtual uint64_t p2m_size() const { return 0; }
  // Machine frame of a pfn; kNoMfn where it has none.
  virtual uint64_t p2m_frame(uint64_t pfn) const = 0;
  // The pages that hold the p2m, 512 entries each: their machine frames.
  virtual const std::vector<uint64_t>& p2m_leaves() const = 0;
  // Finds the leaves again if the guest moved them; *moved says so.
  virtual bool refresh_p2m(bool* moved, Fault* fault) = 0;
  virtual const uint64_t* m2p() const = 0;
  virtual uint64_t nr_mfns() const = 0;
};

}  // namespace dormouse::host
