// A memfd mapped shared: sparse memory that tools open through /proc/PID/fd/N.
#pragma once
#include <cstddef>
#include <cstdint>

#include "fault.h"

namespace dormouse::embedded {

// True where the system gives shared memory huge pages to those who ask.
bool shared_huge_pages();

class SharedArray {
 public:
  SharedArray() = default;
  ~SharedArray();
  SharedArray(SharedArray&& other) noexcept;
  SharedArray& operator=(SharedArray&& other) noexcept;
  SharedArray(const SharedArray&) = delete;

  // NO_MEMORY if it cannot be had. Huge pages are asked for, and used where the machine allows.
  bool create(const char* name, uint64_t bytes, bool huge, Fault* fault);
  // Maps what another process created. HOST_DIED if that process or fd is gone, HOST_UNAVAILABLE if
  // this process may not, HOST_PROTOCOL if it is smaller than `bytes`.
  bool open(int pid, int fd, uint64_t bytes, bool writable, Fault* fault);

  // Fills a page that was never touched. Without huge pages a write call beats the fault that a
  // store into the mapping would take.
  void fill_page(uint64_t page, const void* content);
  // Gives [first, first + count) bytes back to the system; they read as zero afterwards.
  void punch(uint64_t first, uint64_t count);

  int fd() const { return fd_; }
  uint64_t bytes() const { return bytes_; }
  uint8_t* data() const { return data_; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  void close();

  int fd_ = -1;
  uint64_t bytes_ = 0;
  uint8_t* data_ = nullptr;
};

}  // namespace dormouse::embedded
