#include "host/embedded/shared_array.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>

namespace dormouse::embedded {

bool shared_huge_pages() {
  static const bool answer = [] {
    std::ifstream policy("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
    std::string words((std::istreambuf_iterator<char>(policy)), std::istreambuf_iterator<char>());
    return words.find('[') != std::string::npos && words.find("[never]") == std::string::npos &&
           words.find("[deny]") == std::string::npos;
  }();
  return answer;
}

SharedArray::~SharedArray() { close(); }

SharedArray::SharedArray(SharedArray&& other) noexcept { *this = std::move(other); }

SharedArray& SharedArray::operator=(SharedArray&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(bytes_, other.bytes_);
  std::swap(data_, other.data_);
  return *this;
}

void SharedArray::close() {
  if (data_) munmap(data_, bytes_);
  if (fd_ >= 0) ::close(fd_);
  data_ = nullptr;
  fd_ = -1;
}

bool SharedArray::create(const char* name, uint64_t bytes, bool huge, Fault* fault) {
  bytes_ = (bytes + 4095) & ~4095ull;
  fd_ = memfd_create(name, MFD_CLOEXEC);
  void* at = MAP_FAILED;
  if (fd_ >= 0 && ftruncate(fd_, off_t(bytes_)) == 0)
    at = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd_, 0);
  if (at == MAP_FAILED) {
    fault->sys_errno = errno;
    close();
    return fault->raise("NO_MEMORY", std::string("cannot map ") + name);
  }
  data_ = static_cast<uint8_t*>(at);
  if (huge)
    madvise(data_, bytes_, MADV_HUGEPAGE);  // advice: refused on many machines, and harmless
  return true;
}

bool SharedArray::open(int pid, int fd, uint64_t bytes, bool writable, Fault* fault) {
  const std::string path = "/proc/" + std::to_string(pid) + "/fd/" + std::to_string(fd);
  const int opened = ::open(path.c_str(), (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
  if (opened < 0) {
    fault->sys_errno = errno;
    return errno == ENOENT ? fault->raise("HOST_DIED", "the host's memory is gone: " + path)
                           : fault->raise("HOST_UNAVAILABLE", "cannot open " + path);
  }
  struct stat info;
  if (fstat(opened, &info) != 0 || uint64_t(info.st_size) < bytes) {
    ::close(opened);
    return fault->raise("HOST_PROTOCOL", path + " is smaller than the host says");
  }
  bytes_ = (bytes + 4095) & ~4095ull;
  void* at = mmap(nullptr, bytes_, writable ? PROT_READ | PROT_WRITE : PROT_READ,
                  MAP_SHARED | MAP_NORESERVE, opened, 0);
  if (at == MAP_FAILED) {
    fault->sys_errno = errno;
    ::close(opened);
    return fault->raise("HOST_UNAVAILABLE", "cannot map " + path);
  }
  data_ = static_cast<uint8_t*>(at);
  fd_ = opened;
  if (bytes_ >= (2u << 20)) madvise(data_, bytes_, MADV_HUGEPAGE);
  return true;
}

void SharedArray::fill_page(uint64_t page, const void* content) {
  constexpr ssize_t kPage = 4096;
  if (!shared_huge_pages() && pwrite(fd_, content, kPage, off_t(page * kPage)) == kPage) return;
  std::memcpy(data_ + page * kPage, content, kPage);
}

void SharedArray::punch(uint64_t first, uint64_t count) {
  if (count) fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off_t(first), off_t(count));
}

}  // namespace dormouse::embedded
