#include "host/xen/watcher/saved_image.h"

#include <fcntl.h>
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
  uint8_t head[kHeadSize];
  const int fd = open(image.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0 && errno == ENOENT) return Found::kAbsent;
  const ssize_t got = fd < 0 ? -1 : pread(fd, head, sizeof head, 0);
  if (fd >= 0) close(fd);
  if (got >= 0 && (got != ssize_t(sizeof head) || std::memcmp(head, kMagic, sizeof kMagic) != 0 ||
                   hex(head + kImageIdAt, kImageIdSize) != image.image_id))
    return Found::kAbsent;
  // A name that the disk may lose is no reason to end a domain.
  if (got >= 0 && sync_folder(image.path)) {
    std::printf("its image %s is whole\n", image.path.c_str());
    return Found::kThere;
  }
  std::fprintf(stderr, "whether its image %s is there cannot be told: %s\n", image.path.c_str(),
               std::strerror(errno));
  return Found::kUnknown;
}

}  // namespace dormouse::xen
