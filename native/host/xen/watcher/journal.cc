#include "host/xen/watcher/journal.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace dormouse::xen {
namespace {

bool read_process(const char* text, LeaseOwner* process) {
  return std::sscanf(text, "%d %llu", &process->pid, &process->start_time) == 2;
}

// One thing that is open; see Undoable in src/host/xen/leases.ts.
bool read_line(const std::string& line, Journal* out) {
  const size_t space = line.find(' ');
  const std::string word = line.substr(0, space);
  const char* rest = space == line.npos ? "" : line.c_str() + space + 1;
  const std::pair<const char*, bool*> plain[] = {
      {"logdirty", &out->log_dirty},    {"suspended", &out->suspended}, {"pause", &out->pause},
      {"pause over", &out->pause_over}, {"destroy", &out->destroy},     {"build", &out->build}};
  for (const auto& [name, flag] : plain)
    if (line == name) return *flag = true;
  if (word == "suspend") return !(out->suspend = rest).empty();
  if (word == "group") return read_process(rest, &out->builder);
  if (word == "monitor") return read_process(rest, &out->monitor);
  if (word == "saved") return read_saved(rest, &out->saved);
  if (word != "was" || !*rest) return false;
  out->was.push_back(uint32_t(std::strtoul(rest, nullptr, 10)));
  return true;
}

}  // namespace

std::string read_small(int fd) {
  std::vector<char> text(32 * 1024);
  const ssize_t n = pread(fd, text.data(), text.size(), 0);
  return n > 0 ? std::string(text.data(), size_t(n)) : std::string();
}

bool parse_lock(const std::string& text, Lock* lock) {
  return std::sscanf(text.c_str(), "%d %llu %36s", &lock->owner.pid, &lock->owner.start_time,
                     lock->uuid) == 3;
}

bool parse_journal(const std::string& text, Journal* out) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    out->lines.push_back(text.substr(at, end - at));
    at = end + 1;
    if (!read_line(out->lines.back(), out)) return false;
  }
  return true;
}

bool read_journal(const std::string& path, Journal* out) {
  out->path = path;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno == ENOENT;
  const std::string text = read_small(fd);
  close(fd);
  if (parse_journal(text, out)) return true;
  std::fprintf(stderr, "%s has a line that is not understood: %s\n", path.c_str(),
               out->lines.back().c_str());
  return false;
}

bool Journal::strike(const std::string& word) {
  const auto is_it = [&](const std::string& line) {
    return line == word || line.compare(0, word.size() + 1, word + " ") == 0;
  };
  lines.erase(std::remove_if(lines.begin(), lines.end(), is_it), lines.end());
  const std::string next = path + ".new";
  FILE* const file = std::fopen(next.c_str(), "we");
  if (!file) return false;
  bool good = true;
  for (const std::string& line : lines) good = std::fprintf(file, "%s\n", line.c_str()) > 0 && good;
  good = std::fclose(file) == 0 && good;
  return good && std::rename(next.c_str(), path.c_str()) == 0;
}

}  // namespace dormouse::xen
