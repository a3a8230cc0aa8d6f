// A direct-mapped translation buffer. An entry may be stored through while its write generation is
// the domain's: everything that must happen before a write has then happened for this page.
#pragma once
#include <cstdint>
#include <memory>

namespace dormouse::embedded {

struct TlbEntry {
  uint64_t page = 0;  // virtual page number; 0 = empty (page 0 is never mapped)
  uint8_t* data = nullptr;
  uint64_t write_generation = 0;
  uint32_t mfn = 0;
  bool writable = false;
};

class Tlb {
 public:
  static constexpr uint64_t kEntries = 1024;

  TlbEntry& slot(uint64_t page) { return entries_[(page ^ (page >> 10)) & (kEntries - 1)]; }
  void flush() {
    for (uint64_t i = 0; i < kEntries; i++) entries_[i].page = 0;
  }

 private:
  std::unique_ptr<TlbEntry[]> entries_ = std::make_unique<TlbEntry[]>(kEntries);
};

}  // namespace dormouse::embedded
