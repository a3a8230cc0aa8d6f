#include "host/xen/watcher/saved_image.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>

namespace dormouse::xen {
namespace {

// The header as docs/image-format.md has it.
constexpr uint8_t kMagic[8] = {0x89, 'D', 'M', 'I', '\r', '\n', 0x1A, '\n'};
constexpr size_t kImageIdAt = 48;
constexpr size_t kImageIdSize = 16;
constexpr size_t kHeadSize = kImageIdAt + kImageIdSize;

std::string decoded(const std::string& text) {
  std::string out;
  for (size_t at = 0; at < text.size(); ++at) {
    const bool coded = text.compare(at, 3, "%25") == 0 || text.compare(at, 3, "%0A") == 0;
    out += !coded ? text[at] : text[at + 1] == '2' ? '%' : '\n';
    if (coded) at += 2;
  }
  return out;
}

std::string hex(const uint8_t* bytes, size_t size) {
  std::string out;
  char digits[3];
  for (size_t i = 0; i < size; ++i) {
    std::snprintf(digits, sizeof digits, "%02x", bytes[i]);
    out += digits;
  }
  return out;
}

bool sync_folder(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == 0 ? "/" : path.substr(0, slash);
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool good = fsync(fd) == 0;
  close(fd);
  return good;
}

// No file can be behind that name; with other errors it may be there and not be readable now.
bool leads_nowhere(int error) { return error == ENOENT || error == ENOTDIR || error == ELOOP; }

// Whether the file of that name is that image. False, with errno, where it cannot be read. Nothing
// else than a regular file is opened: a FIFO and a device are no images, and may do something then.
bool read_image_id(const SavedImage& image, bool* is_it) {
  struct stat found;
  if (stat(image.path.c_str(), &found) != 0) return false;
  if (!S_ISREG(found.st_mode)) return true;
  const int fd = open(image.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return false;
  uint8_t head[kHeadSize];
  const ssize_t got = pread(fd, head, sizeof head, 0);
  const int error = errno;
  close(fd);
  errno = error;
  *is_it = got == ssize_t(sizeof head) && std::memcmp(head, kMagic, sizeof kMagic) == 0 &&
           hex(head + kImageIdAt, kImageIdSize) == image.image_id;
  return got >= 0;
}

}  // namespace

bool read_saved(const char* text, SavedImage* out) {
  const std::string all = text;
  const size_t first = all.find(' ');
  const size_t second = first == all.npos ? all.npos : all.find(' ', first + 1);
  if (second == all.npos) return false;
  const std::string then = all.substr(0, first);
  out->then_pause = then == "pause";
  out->image_id = all.substr(first + 1, second - first - 1);
  out->path = decoded(all.substr(second + 1));
  return (out->then_pause || then == "destroy") && out->path[0] == '/';
}

Found find_image(const SavedImage& image) {
  if (image.path.empty()) return Found::kAbsent;
  bool is_it = false;
  if (!read_image_id(image, &is_it)) {
    if (leads_nowhere(errno)) return Found::kAbsent;
  } else if (!is_it) {
    return Found::kAbsent;
  } else if (sync_folder(image.path)) {  // a name that the disk may lose is no reason to end it
    std::printf("its image %s is whole\n", image.path.c_str());
    return Found::kThere;
  }
  std::fprintf(stderr, "whether its image %s is there cannot be told: %s; until then it stands\n",
               image.path.c_str(), std::strerror(errno));
  return Found::kUnknown;
}

}  // namespace dormouse::xen
