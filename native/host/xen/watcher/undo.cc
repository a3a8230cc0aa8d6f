#include "host/xen/watcher/undo.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "host/xen/control.h"
#include "host/xen/handles.h"
#include "host/xen/watcher/saved_image.h"

namespace dormouse::xen {
namespace {

// A guest that has taken the request suspends within this time or, it is believed, never will.
constexpr int kSuspendWaitMs = 15'000;
constexpr int kPollMs = 10;
constexpr int kBuilderEndMs = 5'000;

struct Lock {
  LeaseOwner owner;
  char uuid[37] = "";
};

struct Journal {
  bool log_dirty = false, suspend = false, pause = false, destroy = false, build = false;
  std::vector<uint32_t> was;  // domains that had the uuid before the build
  LeaseOwner builder;         // leads the process group that builds
  LeaseOwner monitor;         // the xl process that is stopped; pid 0 where none is
  SavedImage saved;           // decides about the domain; no path where none does
};

std::string path_of(const std::string& run_dir, const std::string& key, const char* kind) {
  return run_dir + "/" + key + "." + kind;
}

// A journal holds a path, and little else.
std::string read_small(int fd) {
  std::vector<char> text(32 * 1024);
  const ssize_t n = pread(fd, text.data(), text.size(), 0);
  return n > 0 ? std::string(text.data(), size_t(n)) : std::string();
}

bool read_process(const char* text, LeaseOwner* process) {
  return std::sscanf(text, "%d %llu", &process->pid, &process->start_time) == 2;
}

// One thing that is open; see Undoable in src/host/xen/leases.ts.
bool read_line(const std::string& line, Journal* out) {
  const size_t space = line.find(' ');
  const std::string word = line.substr(0, space);
  const char* rest = space == line.npos ? "" : line.c_str() + space + 1;
  const std::pair<const char*, bool*> plain[] = {{"logdirty", &out->log_dirty},
                                                 {"suspend", &out->suspend},
                                                 {"pause", &out->pause},
                                                 {"destroy", &out->destroy},
                                                 {"build", &out->build}};
  for (const auto& [name, flag] : plain)
    if (line == name) return *flag = true;
  if (word == "group") return read_process(rest, &out->builder);
  if (word == "monitor") return read_process(rest, &out->monitor);
  if (word == "saved") return read_saved(rest, &out->saved);
  if (word != "was" || !*rest) return false;
  out->was.push_back(uint32_t(std::strtoul(rest, nullptr, 10)));
  return true;
}

// False where it cannot all be understood: what is open must not be taken for undone.
bool read_journal(const std::string& path, Journal* out) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno == ENOENT;
  const std::string text = read_small(fd);
  close(fd);
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    if (read_line(line, out)) continue;
    std::fprintf(stderr, "%s has a line that is not understood: %s\n", path.c_str(), line.c_str());
    return false;
  }
  return true;
}

std::string uuid_of(const xc_domaininfo_t& info) {
  char text[37];
  const uint8_t* h = info.handle;
  std::snprintf(text, sizeof text,
                "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", h[0], h[1],
                h[2], h[3], h[4], h[5], h[6], h[7], h[8], h[9], h[10], h[11], h[12], h[13], h[14],
                h[15]);
  return text;
}

bool is_suspended(const xc_domaininfo_t& info) {
  const uint32_t reason = info.flags >> XEN_DOMINF_shutdownshift & XEN_DOMINF_shutdownmask;
  return (info.flags & XEN_DOMINF_shutdown) && reason == SHUTDOWN_suspend;
}

void complain(const Fault& fault) { std::fprintf(stderr, "%s\n", fault.text.c_str()); }

// Blanks control/shutdown if the guest has not taken the request yet.
bool withdraw_request(xs_handle* store, uint32_t domid) {
  const std::string path = "/local/domain/" + std::to_string(domid) + "/control/shutdown";
  for (int tries = 0; tries < 100; ++tries) {
    const xs_transaction_t tx = xs_transaction_start(store);
    if (tx == XBT_NULL) return false;
    unsigned length = 0;
    char* value = static_cast<char*>(xs_read(store, tx, path.c_str(), &length));
    const bool waiting = value && std::strcmp(value, "suspend") == 0;
    std::free(value);
    if (waiting) xs_write(store, tx, path.c_str(), "", 0);
    if (xs_transaction_end(store, tx, !waiting)) return waiting;
    if (errno != EAGAIN) return false;
  }
  return false;
}

bool undo_suspend(const Handles& xen, uint32_t domid) {
  xs_handle* store = xs_open(0);
  Fault fault;
  xc_domaininfo_t info;
  bool done = !domain_info(xen, domid, &info, &fault);
  if (!done && !is_suspended(info) && store && withdraw_request(store, domid)) {
    std::printf("withdrew the request to suspend\n");
    done = true;
  }
  for (int waited = 0; !done && waited < kSuspendWaitMs; waited += kPollMs) {
    if (!domain_info(xen, domid, &info, &fault)) break;
    if (is_suspended(info)) {
      if (!resume_in_place(xen, domid, &fault)) {
        complain(fault);
        break;
      }
      if (store) xs_resume_domain(store, domid);
      std::printf("resumed it\n");
      done = true;
    } else if (info.flags & (XEN_DOMINF_shutdown | XEN_DOMINF_dying)) {
      done = true;
    } else {
      usleep(kPollMs * 1000);
    }
  }
  if (store) xs_close(store);
  return done || fault.code == nullptr;
}

bool undo_pause(const Handles& xen, uint32_t domid, const xc_domaininfo_t& info) {
  if (!(info.flags & XEN_DOMINF_paused)) return true;
  if (xc_domain_unpause(xen.xc(), domid) != 0) return false;
  std::printf("unpaused it\n");
  return true;
}

// A domain of the toolstack's: devices and xenstore nodes go with it.
bool destroy(uint32_t domid, const char* done) {
  std::fflush(stdout);
  const std::string id = std::to_string(domid);
  const pid_t child = fork();
  if (child == 0) {
    const int null = open("/dev/null", O_RDWR);
    dup2(null, 0);
    dup2(null, 1);
    execlp("xl", "xl", "destroy", id.c_str(), nullptr);
    execl("/usr/sbin/xl", "xl", "destroy", id.c_str(), nullptr);
    _exit(127);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child || status != 0) return false;
  std::printf("%s\n", done);
  return true;
}

// Ends xl and the save helper it started. True if xl was still there.
bool end_builder(const LeaseOwner& builder) {
  if (builder.pid <= 1 || !is_alive(builder)) return false;
  kill(-builder.pid, SIGKILL);
  for (int waited = 0; waited < kBuilderEndMs && is_alive(builder); waited += kPollMs)
    usleep(kPollMs * 1000);
  return true;
}

// What of a build is there: the domains of its uuid that were not there before.
bool find_built(const Handles& xen, const Lock& lock, const Journal& journal,
                std::vector<xc_domaininfo_t>* out) {
  std::vector<xc_domaininfo_t> batch(64);
  for (uint32_t first = 1;;) {
    const int got = xc_domain_getinfolist(xen.xc(), first, unsigned(batch.size()), batch.data());
    if (got < 0) return false;
    for (int i = 0; i < got; ++i) {
      const auto& was = journal.was;
      const bool is_old = std::find(was.begin(), was.end(), batch[i].domain) != was.end();
      if (!is_old && uuid_of(batch[i]) == lock.uuid) out->push_back(batch[i]);
    }
    if (got < int(batch.size())) return true;
    first = batch[got - 1].domain + 1;
  }
}

// A domain that was let go by a builder which came to its end is whole: it stays.
bool undo_build(const Handles& xen, const Lock& lock, const Journal& journal) {
  const bool was_building = end_builder(journal.builder);
  std::vector<xc_domaininfo_t> built;
  if (!find_built(xen, lock, journal, &built)) return false;
  bool good = true;
  for (const xc_domaininfo_t& info : built) {
    if (was_building || (info.flags & (XEN_DOMINF_paused | XEN_DOMINF_dying)))
      good = destroy(info.domain, "removed the half-built domain") && good;
    else
      std::printf("the restored domain %u is whole and runs\n", unsigned(info.domain));
  }
  return good;
}

bool undo(const std::string& key, const Lock& lock, const Journal& journal) {
  Fault fault;
  const Found found = find_image(journal.saved);
  if (found == Found::kUnknown) return false;
  const bool is_saved = found == Found::kThere;
  const auto xen = Handles::open(&fault);
  if (!xen) {
    complain(fault);
    return false;
  }
  if (journal.build) return undo_build(*xen, lock, journal);
  const uint32_t domid = uint32_t(std::strtoul(key.c_str(), nullptr, 10));
  xc_domaininfo_t info;
  if (!domain_info(*xen, domid, &info, &fault)) {
    if (std::strcmp(fault.code, "DOMAIN_NOT_FOUND") == 0) return true;
    complain(fault);
    return false;
  }
  if (uuid_of(info) != lock.uuid) return true;  // the id is another domain's by now
  if (journal.destroy || (is_saved && !journal.saved.then_pause))
    return destroy(domid, "ended it, as it was saved");
  bool good = true;
  if (is_saved) {
    if (xc_domain_pause(xen->xc(), domid) != 0) {
      std::fprintf(stderr, "it cannot be paused: %s\n", std::strerror(errno));
      return false;
    }
    std::printf("left it paused, as it was saved\n");
  }
  if (journal.log_dirty) {
    good = log_dirty_off(*xen, domid, nullptr, &fault);
    if (good) std::printf("ended its log-dirty mode\n");
  }
  if (journal.pause) good = undo_pause(*xen, domid, info) && good;
  if (journal.suspend) good = undo_suspend(*xen, domid) && good;
  if (!good && fault.code) complain(fault);
  return good;
}

bool parse_lock(const std::string& text, Lock* lock) {
  return std::sscanf(text.c_str(), "%d %llu %36s", &lock->owner.pid, &lock->owner.start_time,
                     lock->uuid) == 3;
}

// The file at `path` is still the one that is open as fd.
bool is_same_file(int fd, const std::string& path) {
  struct stat a, b;
  return fstat(fd, &a) == 0 && stat(path.c_str(), &b) == 0 && a.st_ino == b.st_ino &&
         a.st_dev == b.st_dev;
}

// What a build handed to xl and to the save helper.
void remove_build_files(const std::string& dir) {
  for (const char* name : {"domain", "domain.log", "job"}) unlink((dir + "/" + name).c_str());
  rmdir(dir.c_str());
}

UndoResult undo_locked(int fd, const std::string& run_dir, const std::string& key,
                       const LeaseOwner* dead_owner) {
  const std::string lock_path = path_of(run_dir, key, "lock");
  if (!is_same_file(fd, lock_path)) return UndoResult::kNoLease;
  Lock lock;
  const bool readable = parse_lock(read_small(fd), &lock);
  if (dead_owner) {
    if (lock.owner.pid != dead_owner->pid || lock.owner.start_time != dead_owner->start_time)
      return UndoResult::kNoLease;
  } else if (readable && is_alive(lock.owner)) {
    return UndoResult::kAlive;
  }
  const std::string journal_path = path_of(run_dir, key, "journal");
  Journal journal;
  if (!read_journal(journal_path, &journal) || !undo(key, lock, journal))
    return UndoResult::kFailed;
  // Only now: a monitor that saw the domain suspended would give it up.
  if (journal.monitor.pid > 0 && is_alive(journal.monitor)) kill(journal.monitor.pid, SIGCONT);
  remove_build_files(path_of(run_dir, key, "dir"));
  unlink(journal_path.c_str());
  unlink(lock_path.c_str());
  std::printf("released its lease\n");
  return UndoResult::kDone;
}

}  // namespace

bool is_alive(const LeaseOwner& owner) {
  const std::string path = "/proc/" + std::to_string(owner.pid) + "/stat";
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const std::string text = read_small(fd);
  close(fd);
  const size_t after_name = text.rfind(')');
  if (after_name == text.npos) return false;
  char state = 0;
  unsigned long long start = 0;
  const char* fields = text.c_str() + after_name + 1;
  if (std::sscanf(
          fields,
          " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
          &state, &start) != 2)
    return false;
  return start == owner.start_time && state != 'Z' && state != 'X';
}

UndoResult undo_lease(const std::string& run_dir, const std::string& key,
                      const LeaseOwner* dead_owner) {
  const int fd = open(path_of(run_dir, key, "lock").c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return UndoResult::kNoLease;
  UndoResult result = UndoResult::kFailed;
  if (flock(fd, LOCK_EX) == 0) result = undo_locked(fd, run_dir, key, dead_owner);
  close(fd);
  return result;
}

}  // namespace dormouse::xen
