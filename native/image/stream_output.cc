#include "image/stream_output.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

namespace dormouse::image {
namespace {

constexpr uint64_t kSliceMs = 100;  // how often a wait looks whether it was cancelled

uint64_t now_ms() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return uint64_t(now.tv_sec) * 1000 + uint64_t(now.tv_nsec) / 1000000;
}

bool write_failed(Fault* fault) {
  fault->sys_errno = errno;
  return fault->raise(errno == ENOSPC ? "NO_SPACE" : "IMAGE_WRITE_FAILED",
                      std::string("writing the stream: ") + std::strerror(errno));
}

// Takes `written` bytes off the front of the parts.
void advance(iovec** parts, int* n, size_t written) {
  while (*n > 0 && written >= (*parts)->iov_len) {
    written -= (*parts)->iov_len;
    ++*parts;
    --*n;
  }
  if (*n == 0) return;
  (*parts)->iov_base = static_cast<uint8_t*>((*parts)->iov_base) + written;
  (*parts)->iov_len -= written;
}

}  // namespace

// O_NONBLOCK belongs to the open file, which others share: it is not set on theirs.
StreamOutput::StreamOutput(int fd, uint32_t stall_ms) : fd_(fd), stall_ms_(stall_ms) {
  struct stat info {};
  if (fstat(fd, &info) != 0) return;
  socket_ = S_ISSOCK(info.st_mode);
  if (!S_ISFIFO(info.st_mode)) return;
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  own_ = open(path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC);
  may_block_ = own_ < 0;
}

StreamOutput::~StreamOutput() {
  if (own_ >= 0) close(own_);
}

// As writev, but does not block on a pipe or socket that takes no more: -1 with EAGAIN.
ssize_t StreamOutput::try_write(iovec* parts, int n) const {
  if (socket_) {
    msghdr message = {};
    message.msg_iov = parts;
    message.msg_iovlen = size_t(n);
    return sendmsg(fd_, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  }
  if (!may_block_) return writev(own_ >= 0 ? own_ : fd_, parts, n);
  // A pipe that is ready takes that much at once.
  pollfd ready = {fd_, POLLOUT, 0};
  const int polled = poll(&ready, 1, 0);
  if (polled == 0) errno = EAGAIN;
  if (polled <= 0) return -1;
  return ::write(fd_, parts->iov_base, std::min<size_t>(parts->iov_len, PIPE_BUF));
}

// Until something may be taken; false with a fault where that is to be given up.
bool StreamOutput::wait(uint64_t since_ms, Fault* fault) const {
  const uint64_t waited_ms = now_ms() - since_ms;
  if (waited_ms >= stall_ms_)
    return fault->raise("IMAGE_WRITE_FAILED",
                        "nobody has read the stream for " + std::to_string(stall_ms_) + " ms");
  pollfd ready = {own_ >= 0 ? own_ : fd_, POLLOUT, 0};
  const int slice = int(std::min<uint64_t>(kSliceMs, stall_ms_ - waited_ms));
  return poll(&ready, 1, slice) >= 0 || errno == EINTR || write_failed(fault);
}

bool StreamOutput::write(iovec* parts, int n, Fault* fault) {
  uint64_t since_ms = now_ms();
  while (n > 0) {
    if (cancelled_) return fault->raise("CANCELLED", "cancelled while the stream was written");
    if (parts->iov_len == 0) {
      advance(&parts, &n, 0);
      continue;
    }
    const ssize_t wrote = try_write(parts, n);
    if (wrote >= 0) {
      advance(&parts, &n, size_t(wrote));
      since_ms = now_ms();
    } else if (errno == EAGAIN) {
      if (!wait(since_ms, fault)) return false;
    } else if (errno != EINTR) {
      return write_failed(fault);
    }
  }
  return true;
}

}  // namespace dormouse::image
