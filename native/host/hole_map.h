// Which stretches of a translated domain's pfn space have no frames. Its pfn space reaches to 4 GiB
// and more however small the domain is, so that asking about all of it takes longer than its
// memory.
#pragma once
#include <cstdint>
#include <vector>

namespace dormouse::host {

// Reading is safe from several threads, changing is not while others read.
class HoleMap {
 public:
  static constexpr uint32_t kStretch = 1024;  // pfns

  // All stretches count as holes, but nothing is believed until trust().
  void begin(uint64_t nr_pfns);
  void inhabit(uint64_t pfn) { inhabited_[pfn / kStretch] = 1; }
  void trust() { trusted_ = true; }
  bool trusted() const { return trusted_; }

  // A dirty log names every frame that comes: where one of its bits is set is no hole. Bit i of
  // `bitmap` is pfn i.
  void inhabit_logged(const uint8_t* bitmap, uint64_t nr_pfns);

  bool is_hole(uint64_t stretch) const { return !inhabited_[stretch]; }
  uint64_t stretches() const { return inhabited_.size(); }
  // The first pfn from `pfn` on that may have a frame; nr_pfns if none.
  uint64_t next_present(uint64_t pfn) const;
  bool in_hole(uint64_t first, uint32_t n) const {
    return trusted_ && next_present(first) >= first + n;
  }

 private:
  uint64_t nr_pfns_ = 0;
  std::vector<uint8_t> inhabited_;
  bool trusted_ = false;
};

}  // namespace dormouse::host
