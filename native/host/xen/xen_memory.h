// A domain's memory on real Xen.
#pragma once
#include <memory>
#include <mutex>
#include <vector>

#include "host/kept_memory.h"
#include "host/xen/guest_p2m.h"
#include "host/xen/handles.h"

namespace dormouse::xen {

// What Xen tells and gives of a domain's frames.
class XenFrames : public host::FrameSource {
 public:
  static std::unique_ptr<XenFrames> open(std::shared_ptr<Handles> xen, uint32_t domid,
                                         Fault* fault);
  // Null for a domain without page tables in Xen's form.
  const GuestP2m* p2m() const { return p2m_.get(); }

  bool translated() const override { return !p2m_; }
  bool size(uint64_t* total_pages, uint64_t* nr_pfns, Fault* fault) override;
  bool types(const uint64_t* frames, uint32_t n, uint8_t* out, Fault* fault) override;
  std::unique_ptr<host::Mapping> map(const uint64_t* frames, uint32_t n, int* errors,
                                     Fault* fault) override;
  uint64_t p2m_size() const override { return p2m_->nr_pfns(); }
  uint64_t p2m_frame(uint64_t pfn) const override { return p2m_->frame(pfn); }
  const std::vector<uint64_t>& p2m_leaves() const override { return p2m_->leaf_mfns(); }
  bool refresh_p2m(bool* moved, Fault* fault) override { return p2m_->refresh(moved, fault); }
  const uint64_t* m2p() const override { return p2m_->machine().table(); }
  uint64_t nr_mfns() const override { return p2m_->machine().frames(); }

 private:
  XenFrames(std::shared_ptr<Handles> xen, uint32_t domid) : xen_(std::move(xen)), domid_(domid) {}
  std::unique_ptr<HypercallBuffer> take_buffer();

  std::shared_ptr<Handles> xen_;
  uint32_t domid_;
  std::unique_ptr<GuestP2m> p2m_;
  std::mutex buffers_lock_;
  std::vector<std::unique_ptr<HypercallBuffer>> buffers_;
};

class XenMemory : public host::KeptMemory {
 public:
  static std::shared_ptr<XenMemory> open(std::shared_ptr<Handles> xen, uint32_t domid,
                                         Fault* fault);
  const GuestP2m* p2m() const { return p2m_; }

 private:
  explicit XenMemory(std::unique_ptr<XenFrames> frames, const GuestP2m* p2m)
      : KeptMemory(std::move(frames)), p2m_(p2m) {}
  const GuestP2m* p2m_;  // of the frames
};

}  // namespace dormouse::xen
