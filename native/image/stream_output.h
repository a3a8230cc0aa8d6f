// The descriptor a stream is written to: a pipe, socket or file that is somebody else's. A reader
// that takes nothing for too long ends the writing, and so does cancel(): no thread hangs in it.
#pragma once
#include <sys/uio.h>

#include <atomic>
#include <cstdint>

#include "fault.h"

namespace dormouse::image {

class StreamOutput {
 public:
  // The descriptor stays the caller's, and so does whether it blocks.
  StreamOutput(int fd, uint32_t stall_ms);
  ~StreamOutput();
  StreamOutput(const StreamOutput&) = delete;
  StreamOutput& operator=(const StreamOutput&) = delete;

  // Writes all of the parts, which it changes. One thread at a time. Faults: NO_SPACE,
  // IMAGE_WRITE_FAILED (also when nothing was taken for stall_ms), CANCELLED.
  bool write(iovec* parts, int n, Fault* fault);

  // From any thread: what is being written, and all that follows, ends with CANCELLED within 0.1 s.
  void cancel() { cancelled_ = true; }

 private:
  ssize_t try_write(iovec* parts, int n) const;
  bool wait(uint64_t since_ms, Fault* fault) const;

  const int fd_;
  const uint32_t stall_ms_;
  int own_ = -1;  // a pipe opened once more, so that writes to it do not block
  bool socket_ = false;
  bool may_block_ = false;  // a pipe that could not be opened: written to a page at a time
  std::atomic<bool> cancelled_{false};
};

}  // namespace dormouse::image
