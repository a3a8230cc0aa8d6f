// What a lease's files say: who holds it, and what is open; undo.h describes them.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "host/xen/watcher/saved_image.h"

namespace dormouse::xen {

struct LeaseOwner {
  int pid = 0;
  unsigned long long start_time = 0;  // clock ticks since boot, as /proc/PID/stat has it
};

struct Lock {
  LeaseOwner owner;
  char uuid[37] = "";
};

struct Journal {
  bool log_dirty = false, pause = false, pause_over = false, destroy = false, build = false;
  std::string suspend;  // by what the request can be known; empty where none was going to be made
  bool suspended = false;     // it was seen suspended
  std::vector<uint32_t> was;  // domains that had the uuid before the build
  LeaseOwner builder;         // leads the process group that builds
  LeaseOwner monitor;         // the xl process that is stopped; pid 0 where none is
  SavedImage saved;           // decides about the domain; no path where none does

  std::string path;
  std::vector<std::string> lines;

  // Nothing of that is open any more: the file says so too. False if it cannot be written.
  bool strike(const std::string& word);
};

// As much of the file as a lease's files ever hold.
std::string read_small(int fd);

bool parse_lock(const std::string& text, Lock* lock);

// Takes the text apart line by line; `lines` ends with the first that is not understood. False
// then.
bool parse_journal(const std::string& text, Journal* out);

// An empty journal where there is no file. False, with the reason on standard error, where it
// cannot all be understood: what is open must not be taken for undone.
bool read_journal(const std::string& path, Journal* out);

}  // namespace dormouse::xen
