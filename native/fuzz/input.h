// Takes a fuzzer's bytes apart.
#pragma once
#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace dormouse::fuzz {

// What a target found: libFuzzer keeps the input of a process that aborts.
inline void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz: %s\n", what);
  std::abort();
}

class Input {
 public:
  Input(const uint8_t* data, size_t bytes) : data_(data), left_(bytes) {}
  size_t left() const { return left_; }
  const uint8_t* rest() const { return data_; }
  // Bytes beyond the end read as zero.
  void take(void* to, size_t bytes) {
    const size_t there = bytes < left_ ? bytes : left_;
    std::memset(to, 0, bytes);
    if (there) std::memcpy(to, data_, there);
    data_ += there;
    left_ -= there;
  }
  template <typename T>
  T number() {
    T value;
    take(&value, sizeof value);
    return value;
  }

 private:
  const uint8_t* data_;
  size_t left_;
};

// Memory that ends at a page nobody may touch: gathers are invisible to AddressSanitizer, a fault
// is not.
class Fenced {
 public:
  explicit Fenced(size_t most) : room_((most + kPage - 1) / kPage * kPage) {
    void* at =
        mmap(nullptr, room_ + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require(at != MAP_FAILED, "no memory");
    base_ = static_cast<uint8_t*>(at);
    require(mprotect(base_ + room_, kPage, PROT_NONE) == 0, "no fence");
  }
  // The last `bytes` bytes before the fence.
  uint8_t* last(size_t bytes) const {
    require(bytes <= room_, "larger than the fenced memory");
    return base_ + room_ - bytes;
  }
  uint64_t* last_words(size_t n) const { return reinterpret_cast<uint64_t*>(last(n * 8)); }

 private:
  static constexpr size_t kPage = 4096;
  size_t room_;
  uint8_t* base_;
};

}  // namespace dormouse::fuzz
