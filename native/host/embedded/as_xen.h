// A domain of this host as Xen would show it: for tests of what is built on Xen's view of a domain
// where there is no Xen.
#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "host/embedded/view.h"
#include "host/frame_source.h"

namespace dormouse::embedded {

struct AsXenOptions {
  uint64_t nr_pfns = 0;
  int meta = -1;
  bool translated = false;
  std::vector<uint64_t> p2m_pfns;  // of a domain that is not translated
};

class AsXenFrames : public host::FrameSource {
 public:
  static std::unique_ptr<AsXenFrames> open(std::shared_ptr<MachineMap> machine,
                                           const AsXenOptions& options, Fault* fault);

  bool translated() const override { return options_.translated; }
  bool size(uint64_t* total_pages, uint64_t* nr_pfns, Fault* fault) override;
  bool types(const uint64_t* frames, uint32_t n, uint8_t* out, Fault* fault) override;
  std::unique_ptr<host::Mapping> map(const uint64_t* frames, uint32_t n, int* errors,
                                     Fault* fault) override;
  uint64_t p2m_size() const override { return options_.nr_pfns; }
  uint64_t p2m_frame(uint64_t pfn) const override;
  const std::vector<uint64_t>& p2m_leaves() const override { return leaves_; }
  bool refresh_p2m(bool* moved, Fault* fault) override;
  const uint64_t* m2p() const override { return machine_->m2p(); }
  uint64_t nr_mfns() const override { return machine_->fds().frames; }

 private:
  // Frames that are mapped, with the pfn they had: Xen does not take one back before it is
  // unmapped.
  struct Held {
    std::mutex lock;
    std::map<std::pair<uint64_t, uint64_t>, uint32_t> count;
  };
  class Pages;

  AsXenFrames(std::shared_ptr<MachineMap> machine, const AsXenOptions& options)
      : machine_(std::move(machine)), options_(options), held_(std::make_shared<Held>()) {}
  uint64_t entry(uint64_t pfn) const {
    return __atomic_load_n(entries_.as<uint64_t>() + pfn, __ATOMIC_ACQUIRE);
  }
  // The entry of the page that is in a frame; without one where the frame is not the domain's.
  uint64_t entry_of(uint64_t frame, uint64_t* pfn) const;

  std::shared_ptr<MachineMap> machine_;
  AsXenOptions options_;
  SharedArray entries_;
  std::vector<uint64_t> leaves_;
  std::shared_ptr<Held> held_;
};

}  // namespace dormouse::embedded
