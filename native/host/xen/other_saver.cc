#include "host/xen/other_saver.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

namespace dormouse::xen {
namespace {

std::vector<std::string> words_of(const std::string& command_line) {
  std::vector<std::string> words;
  for (size_t at = 0; at < command_line.size();) {
    const size_t end = std::min(command_line.find('\0', at), command_line.size());
    words.push_back(command_line.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

int number(const std::string& text) {
  if (text.empty() || text.size() > 5 || text.find_first_not_of("0123456789") != text.npos)
    return -1;
  return std::atoi(text.c_str());
}

// What follows "-name" or "--name".
std::string option(const std::vector<std::string>& words, const std::string& name) {
  for (size_t i = 1; i + 1 < words.size(); ++i)
    if (words[i] == "-" + name || words[i] == "--" + name) return words[i + 1];
  return "";
}

std::string read_all(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return "";
  char text[4096];
  const ssize_t n = read(fd, text, sizeof text);
  close(fd);
  return n > 0 ? std::string(text, size_t(n)) : "";
}

}  // namespace

int saved_domain(const std::string& command_line) {
  const std::vector<std::string> words = words_of(command_line);
  // libxl's helper, whatever LIBXL_SAVE_HELPER calls it. Ours is a script, and takes leases.
  if (words.size() > 4 && words[1] == "--save-domain") return number(words[4]);
  if (words.empty()) return -1;
  const std::string program = words[0].substr(words[0].rfind('/') + 1);
  if (program != "emu-manager" && program != "xenguest") return -1;
  return option(words, "mode").find("save") == std::string::npos ? -1
                                                                 : number(option(words, "domid"));
}

int other_saver(uint32_t domid) {
  DIR* const processes = opendir("/proc");
  if (!processes) return 0;
  int found = 0;
  while (const dirent* entry = found ? nullptr : readdir(processes)) {
    const int pid = std::atoi(entry->d_name);
    if (pid <= 0) continue;
    const std::string path = std::string("/proc/") + entry->d_name;
    struct stat owner;
    if (saved_domain(read_all(path + "/cmdline")) == int(domid) &&
        stat(path.c_str(), &owner) == 0 && owner.st_uid == geteuid())
      found = pid;
  }
  closedir(processes);
  return found;
}

}  // namespace dormouse::xen
