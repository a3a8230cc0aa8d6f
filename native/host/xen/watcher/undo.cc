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
#include "host/xen/watcher/suspended.h"

namespace dormouse::xen {
namespace {

constexpr int kPollMs = 10;
constexpr int kBuilderEndMs = 5'000;
constexpr int kWatchPollMs = 100;

std::string path_of(const std::string& run_dir, const std::string& key, const char* kind) {
  return run_dir + "/" + key + "." + kind;
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

void complain(const Fault& fault) { std::fprintf(stderr, "%s\n", fault.text.c_str()); }

// Ours is one of the controller's pauses; somebody else's keeps the domain paused.
bool undo_pause(const Handles& xen, uint32_t domid, bool over) {
  Fault fault;
  xc_domaininfo_t info;
  if (!domain_info(xen, domid, &info, &fault) || !(info.flags & XEN_DOMINF_paused)) return true;
  if (xc_domain_unpause(xen.xc(), domid) != 0) return false;
  // It stood before, and whether ours was added is not known: if it runs now there was only that
  // one.
  if (over && domain_info(xen, domid, &info, &fault) && !(info.flags & XEN_DOMINF_paused))
    return xc_domain_pause(xen.xc(), domid) == 0;
  std::printf(over ? "took its pause back\n" : "unpaused it\n");
  return true;
}

// What libxl has taken over meanwhile is libxl's to end.
bool undo_log_dirty(const Handles& xen, uint32_t domid) {
  Fault fault;
  if (log_dirty_off(xen, domid, nullptr, &fault))
    std::printf("ended its log-dirty mode\n");
  else if (std::strcmp(fault.code, "LOCKED") == 0)
    std::printf("left its dirty log alone: %s\n", fault.text.c_str());
  else
    complain(fault);
  return !fault.code || std::strcmp(fault.code, "LOCKED") == 0;
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

// Ends xl and the save helper it started.
void end_builder(const LeaseOwner& builder) {
  if (builder.pid <= 1 || !is_alive(builder)) return;
  kill(-builder.pid, SIGKILL);
  for (int waited = 0; waited < kBuilderEndMs && is_alive(builder); waited += kPollMs)
    usleep(kPollMs * 1000);
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

// A domain that runs is whole, for it is let go last of all: it stays, also where xl was not at its
// end.
bool undo_build(const Handles& xen, const Lock& lock, const Journal& journal) {
  end_builder(journal.builder);
  std::vector<xc_domaininfo_t> built;
  if (!find_built(xen, lock, journal, &built)) return false;
  bool good = true;
  for (const xc_domaininfo_t& info : built) {
    if (info.flags & (XEN_DOMINF_paused | XEN_DOMINF_dying))
      good = destroy(info.domain, "removed the half-built domain") && good;
    else
      std::printf("the restored domain %u is whole and runs\n", unsigned(info.domain));
  }
  return good;
}

Undone of(bool good) { return good ? Undone::kYes : Undone::kFailed; }

// What is done is struck, so that trying again does it once; what fails keeps nothing else from it.
// Without knowing whether the image is there, that which has the domain stand stays.
Undone undo_steps(const Handles& xen, const xc_domaininfo_t& info, Found found, bool rewinding,
                  Journal* journal) {
  const uint32_t domid = info.domain;
  const bool known = found != Found::kUnknown;
  bool good = known;
  if (journal->log_dirty) good = undo_log_dirty(xen, domid) && journal->strike("logdirty") && good;
  const bool may_unpause = !rewinding && (known || (info.flags & XEN_DOMINF_shutdown));
  if (rewinding) std::printf("left it paused: it is half rewound\n");
  if (may_unpause && (journal->pause || journal->pause_over))
    good = undo_pause(xen, domid, journal->pause_over) && journal->strike("pause") && good;
  if (!known || (journal->suspend.empty() && !journal->suspended)) return of(good);
  const Undone suspension = undo_suspend(xen, domid, *journal);
  return suspension == Undone::kYes ? of(good) : suspension;
}

bool leave_paused(const Handles& xen, uint32_t domid, const xc_domaininfo_t& info) {
  if (!(info.flags & XEN_DOMINF_paused) && xc_domain_pause(xen.xc(), domid) != 0) {
    std::fprintf(stderr, "it cannot be paused: %s\n", std::strerror(errno));
    return false;
  }
  std::printf("left it paused, as it was saved\n");
  return true;
}

// Whether a rollback has begun to make another of the domain (src/host/xen/rewinding.ts).
bool is_rewinding(const std::string& run_dir, const std::string& key, const Lock& lock) {
  const int fd = open(path_of(run_dir, key, "rewinding").c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const std::string uuid = read_small(fd);
  close(fd);
  return uuid == lock.uuid;
}

Undone undo(const std::string& key, const Lock& lock, bool rewinding, Journal* journal) {
  Fault fault;
  const Found found = find_image(journal->saved);
  const bool is_saved = found == Found::kThere;
  const auto xen = Handles::open(&fault);
  if (!xen) {
    complain(fault);
    return Undone::kFailed;
  }
  if (journal->build) return of(undo_build(*xen, lock, *journal));
  const uint32_t domid = uint32_t(std::strtoul(key.c_str(), nullptr, 10));
  xc_domaininfo_t info;
  if (!domain_info(*xen, domid, &info, &fault)) {
    if (std::strcmp(fault.code, "DOMAIN_NOT_FOUND") == 0) return Undone::kYes;
    complain(fault);
    return Undone::kFailed;
  }
  if (uuid_of(info) != lock.uuid) return Undone::kYes;  // the id is another domain's by now
  if (journal->destroy || (is_saved && !journal->saved.then_pause))
    return of(destroy(domid, "ended it, as it was saved"));
  if (is_saved && !leave_paused(*xen, domid, info)) return Undone::kFailed;
  return undo_steps(*xen, info, found, rewinding, journal);
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
  if (!read_journal(journal_path, &journal)) return UndoResult::kFailed;
  const Undone undone = undo(key, lock, is_rewinding(run_dir, key, lock), &journal);
  if (undone == Undone::kFailed) return UndoResult::kFailed;
  if (undone == Undone::kPending) return UndoResult::kPending;
  // Only now: a monitor that saw the domain suspended would give it up.
  if (journal.monitor.pid > 0 && is_alive(journal.monitor)) kill(journal.monitor.pid, SIGCONT);
  remove_build_files(path_of(run_dir, key, "dir"));
  unlink(journal_path.c_str());
  unlink(path_of(run_dir, key, "watch").c_str());
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

void keep_trying(const std::string& run_dir, const std::string& key) {
  std::fflush(nullptr);
  if (fork() != 0) return;
  setsid();
  const int null = open("/dev/null", O_RDWR);
  for (const int fd : {0, 1, 2}) dup2(null, fd);
  const std::string watch_path = path_of(run_dir, key, "watch");
  const int lock = open(path_of(run_dir, key, "lock").c_str(), O_RDONLY | O_CLOEXEC);
  Lock held;
  if (lock < 0 || !parse_lock(read_small(lock), &held)) _exit(1);
  const int watch = open(watch_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (watch < 0) _exit(1);
  close(lock);
  if (flock(watch, LOCK_EX | LOCK_NB) != 0) _exit(0);
  UndoResult result = UndoResult::kPending;
  while (result == UndoResult::kPending || result == UndoResult::kFailed) {
    usleep(kWatchPollMs * 1000);
    result = undo_lease(run_dir, key, &held.owner);
  }
  // Somebody else ended it, perhaps before this file was made.
  if (result == UndoResult::kNoLease && is_same_file(watch, watch_path)) unlink(watch_path.c_str());
  _exit(0);
}

}  // namespace dormouse::xen
