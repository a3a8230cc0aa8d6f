// The file an image is written into. It has no name until publish() gives it one; if the process
// dies before, the kernel drops it (or, where the file system lacks unnamed files, a hidden
// ".partial" stays). Others may write in the folder: a name that was given is not looked up again.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "fault.h"

namespace dormouse::image {

struct OutputPlace {
  std::string path;
  bool direct;
  bool unnamed;   // false pretends that the file system has no unnamed files
  bool nameless;  // the file never gets a name: of `path` only the folder counts
};

class OutputFile {
 public:
  // Faults: OUTPUT_EXISTS, OUTPUT_INVALID, NO_SPACE, IMAGE_WRITE_FAILED.
  static std::unique_ptr<OutputFile> create(const OutputPlace& place, Fault* fault);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  // Gives out the next `bytes` (whole pages) of the file. Thread-safe.
  uint64_t reserve(uint64_t bytes);
  // The same, to be written in part: what is not stays a hole where the file system has any.
  uint64_t skip(uint64_t bytes);
  // For reading back what was written; stays this object's.
  int descriptor() const { return fd_; }
  // Whether a write of so many bytes goes to the disk itself, and not into the page cache.
  bool is_direct(uint64_t n) const;
  uint64_t reserved() const { return next_.load(std::memory_order_relaxed); }

  // Address, offset and size are multiples of 4096. Thread-safe on disjoint ranges.
  bool write_at(uint64_t offset, const uint8_t* bytes, uint64_t n, Fault* fault);

  // Puts whole pages at the end of the file, `from` on in another one, whose bytes they are. Where
  // the file system can, the two files then have the same blocks. Thread-safe.
  bool share(int fd, uint64_t from, const uint8_t* bytes, uint64_t n, uint64_t* offset,
             Fault* fault);
  // Of what share() put, the bytes that took no room.
  uint64_t shared_bytes() const { return shared_bytes_.load(std::memory_order_relaxed); }

  // Cuts the file to `size`, makes it durable, names it without replacing anything, and makes the
  // name durable; of a nameless one the first two. On a fault nothing of it is left under the name.
  bool publish(uint64_t size, Fault* fault);
  // A descriptor of the file that outlives this object; the caller's. -1 on a fault.
  int duplicate(Fault* fault) const;

  // For tests: the nth system call on the file from now (1 is the next) fails with that errno, and
  // so do all after it where `for_ever`.
  void fail_call(uint32_t nth, int with_errno, bool for_ever);

 private:
  OutputFile() = default;
  bool open_unnamed(Fault* fault);
  bool open_partial(Fault* fault);
  bool is_partial() const;
  bool drop_partial(Fault* fault);
  void unlink_partial();
  int direct_descriptor();
  void allocate_ahead(uint64_t until);
  bool link_name(Fault* fault);
  bool injected();
  bool raise(Fault* fault, const char* doing, uint64_t offset = Fault::kNowhere) const;

  std::string path_, name_, partial_;
  int folder_ = -1;
  int fd_ = -1;
  bool nameless_ = false;
  bool allocates_ = true;
  std::atomic<bool> direct_{false};
  std::mutex direct_lock_;
  int direct_fd_ = -1;
  std::atomic<uint64_t> next_{0};
  std::atomic<bool> shares_{true};
  std::atomic<uint64_t> shared_bytes_{0};
  std::mutex ahead_lock_;
  uint64_t ahead_ = 0;
  std::atomic<int64_t> fail_in_{0};
  int fail_errno_ = 0;
  bool fail_for_ever_ = false;
};

}  // namespace dormouse::image
