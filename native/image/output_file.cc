#include "image/output_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>

namespace dormouse::image {

namespace {

// A file that stays as small is not worth it; of a larger one as much again, up to a step.
constexpr uint64_t kUnallocatedBytes = 8ull << 20;
constexpr uint64_t kAllocateLeast = 32ull << 20, kAllocateMost = 256ull << 20;
// What is less than this costs more to hand to the disk by itself than to hold back.
constexpr uint64_t kSyncBytes = 256ull << 10;
// What is less goes through the page cache: of a small file the one fsync then waits for the disk,
// and not each write.
constexpr uint64_t kDirectBytes = 1ull << 20;

bool is_full(int error) { return error == ENOSPC || error == EDQUOT || error == EFBIG; }

bool refuse(Fault* fault, const char* code, const std::string& path, const char* why) {
  return fault->raise(code, path + ": " + why);
}

// Refuses what must not be written to, before anything is read or created.
bool check_absent(int folder, const std::string& name, const std::string& path, Fault* fault) {
  struct stat found;
  if (fstatat(folder, name.c_str(), &found, AT_SYMLINK_NOFOLLOW) == 0) {
    if (S_ISDIR(found.st_mode)) return refuse(fault, "OUTPUT_INVALID", path, "is a directory");
    if (S_ISLNK(found.st_mode)) return refuse(fault, "OUTPUT_INVALID", path, "is a symbolic link");
    if (!S_ISREG(found.st_mode))
      return refuse(fault, "OUTPUT_INVALID", path, "is not a regular file");
    return refuse(fault, "OUTPUT_EXISTS", path, "exists already");
  }
  if (errno == ENOENT) return true;
  fault->sys_errno = errno;
  return refuse(fault, "OUTPUT_INVALID", path, strerror(errno));
}

std::string random_suffix() {
  unsigned char bytes[8] = {};
  if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes) return "0";
  std::string hex;
  for (unsigned char b : bytes) {
    hex += "0123456789abcdef"[b >> 4];
    hex += "0123456789abcdef"[b & 15];
  }
  return hex;
}

}  // namespace

bool OutputFile::raise(Fault* fault, const char* doing, uint64_t offset) const {
  const int error = errno;
  fault->sys_errno = error;
  fault->offset = offset;
  return fault->raise(is_full(error) ? "NO_SPACE" : "IMAGE_WRITE_FAILED",
                      path_ + ": " + doing + ": " + strerror(error));
}

bool OutputFile::injected() {
  if (fail_in_.load(std::memory_order_relaxed) == 0) return false;
  const int64_t left = fail_in_.fetch_sub(1);
  if (left != 1 && !(left < 1 && fail_for_ever_)) return false;
  errno = fail_errno_;
  return true;
}

void OutputFile::fail_call(uint32_t nth, int with_errno, bool for_ever) {
  fail_errno_ = with_errno;
  fail_for_ever_ = for_ever;
  fail_in_ = nth;
}

bool OutputFile::open_unnamed(Fault* fault) {
  fd_ = openat(folder_, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd_ >= 0) return true;
  if (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT || errno == EINVAL)
    return open_partial(fault);
  if (is_full(errno)) return raise(fault, "open");
  fault->sys_errno = errno;
  return refuse(fault, "OUTPUT_INVALID", path_, strerror(errno));
}

bool OutputFile::open_partial(Fault* fault) {
  partial_ = "." + name_.substr(0, 200) + "." + random_suffix() + ".partial";
  const int flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  fd_ = openat(folder_, partial_.c_str(), flags, 0600);
  if (fd_ >= 0) return !nameless_ || drop_partial(fault);
  partial_.clear();
  if (is_full(errno)) return raise(fault, "open");
  fault->sys_errno = errno;
  return refuse(fault, "OUTPUT_INVALID", path_, strerror(errno));
}

// Whether the hidden name leads to this file still.
bool OutputFile::is_partial() const {
  struct stat named, own;
  return fstatat(folder_, partial_.c_str(), &named, AT_SYMLINK_NOFOLLOW) == 0 &&
         fstat(fd_, &own) == 0 && named.st_dev == own.st_dev && named.st_ino == own.st_ino;
}

// What has the name by now may be somebody else's.
void OutputFile::unlink_partial() {
  if (is_partial()) unlinkat(folder_, partial_.c_str(), 0);
  partial_.clear();
}

bool OutputFile::drop_partial(Fault* fault) {
  unlink_partial();
  struct stat own;
  if (fstat(fd_, &own) != 0) return raise(fault, "stat");
  if (own.st_nlink == 0) return true;
  return refuse(fault, "OUTPUT_INVALID", path_, "somebody renames the files in its folder");
}

static void split_path(const std::string& path, std::string* folder, std::string* name) {
  const size_t slash = path.rfind('/');
  *folder = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  *name = slash == std::string::npos ? path : path.substr(slash + 1);
}

std::unique_ptr<OutputFile> OutputFile::create(const OutputPlace& place, Fault* fault) {
  std::unique_ptr<OutputFile> file(new OutputFile());
  const std::string& path = place.path;
  std::string folder;
  split_path(path, &folder, &file->name_);
  file->path_ = path;
  file->nameless_ = place.nameless;
  if (file->name_.empty() || file->name_ == "." || file->name_ == "..") {
    refuse(fault, "OUTPUT_INVALID", path, "is not a file name");
    return nullptr;
  }
  file->folder_ = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file->folder_ < 0) {
    fault->sys_errno = errno;
    refuse(fault, "OUTPUT_INVALID", folder, strerror(errno));
    return nullptr;
  }
  if (!place.nameless && !check_absent(file->folder_, file->name_, path, fault)) return nullptr;
  if (!(place.unnamed ? file->open_unnamed(fault) : file->open_partial(fault))) return nullptr;
  file->direct_ = place.direct;
  struct statfs system;
  // tmpfs would fill allocated pages with zeroes first.
  if (fstatfs(file->fd_, &system) == 0 && system.f_type == TMPFS_MAGIC) file->allocates_ = false;
  return file;
}

OutputFile::~OutputFile() {
  if (!partial_.empty()) unlink_partial();
  if (direct_fd_ >= 0) close(direct_fd_);
  if (fd_ >= 0) close(fd_);
  if (folder_ >= 0) close(folder_);
}

// Extends the file in large steps, so that lanes write inside it and side by side. Only a help:
// where it fails the writes themselves tell.
void OutputFile::allocate_ahead(uint64_t until) {
  std::lock_guard<std::mutex> hold(ahead_lock_);
  if (!allocates_ || until <= std::max(ahead_, kUnallocatedBytes)) return;
  const uint64_t target = until + std::clamp(until, kAllocateLeast, kAllocateMost);
  if (fallocate(fd_, 0, off_t(ahead_), off_t(target - ahead_)) == 0)
    ahead_ = target;
  else if (errno != EINTR)
    allocates_ = false;
}

uint64_t OutputFile::reserve(uint64_t bytes) {
  const uint64_t offset = next_.fetch_add(bytes);
  allocate_ahead(offset + bytes);
  return offset;
}

uint64_t OutputFile::skip(uint64_t bytes) {
  std::lock_guard<std::mutex> hold(ahead_lock_);
  allocates_ = false;
  return next_.fetch_add(bytes);
}

// A description of its own, made when there is something for it; -1 where there is none.
int OutputFile::direct_descriptor() {
  if (!direct_) return -1;
  std::lock_guard<std::mutex> hold(direct_lock_);
  if (direct_fd_ >= 0) return direct_fd_;
  const std::string self = "/proc/self/fd/" + std::to_string(fd_);
  direct_fd_ = open(self.c_str(), O_WRONLY | O_DIRECT | O_CLOEXEC);
  if (direct_fd_ < 0) direct_ = false;
  return direct_fd_;
}

bool OutputFile::is_direct(uint64_t n) const { return direct_ && n >= kDirectBytes; }

bool OutputFile::write_at(uint64_t offset, const uint8_t* bytes, uint64_t n, Fault* fault) {
  uint64_t done = 0;
  while (done < n) {
    const int direct = is_direct(n) ? direct_descriptor() : -1;
    const ssize_t wrote = injected() ? -1
                                     : pwrite(direct >= 0 ? direct : fd_, bytes + done, n - done,
                                              off_t(offset + done));
    if (wrote > 0) {
      done += uint64_t(wrote);
      if (done % 4096 != 0) direct_ = false;
      continue;
    }
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0 && errno == EINVAL && direct >= 0) {
      direct_ = false;
      continue;
    }
    if (wrote == 0) errno = ENOSPC;
    return raise(fault, "write", offset + done);
  }
  // Without this the page cache would hold everything back until the one fsync.
  if (!is_direct(n) && n >= kSyncBytes)
    sync_file_range(fd_, off_t(offset), off_t(n), SYNC_FILE_RANGE_WRITE);
  return true;
}

// Whatever forbids sharing, be it the file system, another one or how blocks lie in it, forbids it
// of the next bytes too.
bool OutputFile::share(int fd, uint64_t from, const uint8_t* bytes, uint64_t n, uint64_t* offset,
                       Fault* fault) {
  if (!shares_) {
    *offset = reserve(n);
    return write_at(*offset, bytes, n, fault);
  }
  // Without allocating what is to be shared.
  *offset = next_.fetch_add(n);
  file_clone_range range = {};
  range.src_fd = fd;
  range.src_offset = from;
  range.src_length = n;
  range.dest_offset = *offset;
  if (ioctl(fd_, FICLONERANGE, &range) == 0) {
    shared_bytes_ += n;
    return true;
  }
  shares_ = false;
  return write_at(*offset, bytes, n, fault);
}

bool OutputFile::link_name(Fault* fault) {
  // Never by a name that it has: others may have put another file there.
  const std::string self = "/proc/self/fd/" + std::to_string(fd_);
  if (injected()) return raise(fault, "link");
  int linked = linkat(AT_FDCWD, self.c_str(), folder_, name_.c_str(), AT_SYMLINK_FOLLOW);
  if (linked != 0 && errno == ENOENT)
    linked = linkat(fd_, "", folder_, name_.c_str(), AT_EMPTY_PATH);
  if (linked == 0) return true;
  if (errno == EEXIST)
    return refuse(fault, "OUTPUT_EXISTS", path_, "appeared while the image was written");
  return raise(fault, "link");
}

bool OutputFile::publish(uint64_t size, Fault* fault) {
  if (injected() || ftruncate(fd_, off_t(size)) != 0) return raise(fault, "truncate");
  // Once only: after a failed fsync the kernel may call the lost pages clean.
  if (injected() || fsync(fd_) != 0) return raise(fault, "fsync");
  if (nameless_) return true;
  if (!link_name(fault)) return false;
  if (!partial_.empty()) unlink_partial();
  if (!injected() && fsync(folder_) == 0) return true;
  raise(fault, "fsync of the folder");
  unlinkat(folder_, name_.c_str(), 0);
  return false;
}

int OutputFile::duplicate(Fault* fault) const {
  const int fd = fcntl(fd_, F_DUPFD_CLOEXEC, 0);
  if (fd < 0) raise(fault, "duplicate");
  return fd;
}

}  // namespace dormouse::image
