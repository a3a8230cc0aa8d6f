// Stands beside a process that works on a domain and undoes what that process leaves open if it
// dies.
//   watch RUN_DIR KEY PID START     standard input is a pipe from the owner, which ends the lease
//                                   by 'd' (all is done) or 'u' (undo what is open); end of file
//                                   without either means that it died
//   undo RUN_DIR KEY                undoes now if the owner is dead
//   end-log DOMID                   ends the dirty log of a domain that another tool left on
// Exit: 0 done or nothing to do, 1 failed, 2 usage, 3 the owner is alive, 4 the guest is on its way
// to its suspend point: a process that stays waits for it and resumes it.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "host/xen/control.h"
#include "host/xen/watcher/undo.h"

using dormouse::Fault;
using namespace dormouse::xen;

namespace {

constexpr int kPollMs = 10;
// How long the owner, and the next verb, are let wait for a guest that took the request to suspend.
constexpr int kSuspendWaitMs = 15'000;
constexpr int kVerbWaitMs = 1'000;

// The owner's last word: 'd' all is done, 'u' undo what is open, 0 it died.
char last_word() {
  char byte = 0;
  while (read(STDIN_FILENO, &byte, 1) < 0 && errno == EINTR) {
  }
  return byte;
}

int exit_code(UndoResult result) {
  if (result == UndoResult::kAlive) return 3;
  if (result == UndoResult::kPending) return 4;
  return result == UndoResult::kFailed ? 1 : 0;
}

// Tries until nothing is pending, for that long; then a process of its own goes on.
UndoResult undo_for(int ms, const std::string& run_dir, const std::string& key,
                    const LeaseOwner* dead_owner) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::milliseconds(ms);
  UndoResult result = undo_lease(run_dir, key, dead_owner);
  while (result == UndoResult::kPending && Clock::now() < end) {
    usleep(kPollMs * 1000);
    result = undo_lease(run_dir, key, dead_owner);
  }
  if (result != UndoResult::kPending) return result;
  std::printf("it took a request to suspend, and is resumed as soon as it has suspended\n");
  keep_trying(run_dir, key);
  return result;
}

// Where a service is ended by killing its control group, what it worked on is still given back.
void leave_control_group() {
  for (const char* root : {"/sys/fs/cgroup", "/sys/fs/cgroup/systemd"}) {
    const std::string group = std::string(root) + "/dormouse-watchers";
    struct stat there;
    if (stat((std::string(root) + "/cgroup.procs").c_str(), &there) != 0) continue;
    mkdir(group.c_str(), 0755);
    const int fd = open((group + "/cgroup.procs").c_str(), O_WRONLY | O_CLOEXEC);
    if (fd < 0) continue;
    const std::string pid = std::to_string(getpid());
    if (write(fd, pid.c_str(), pid.size()) < 0) {
      // The service's end takes this process too: the next verb undoes then.
    }
    close(fd);
  }
}

int end_log(const char* domid) {
  Fault fault;
  const auto xen = Handles::open(&fault);
  if (xen && log_dirty_off(*xen, uint32_t(std::strtoul(domid, nullptr, 10)), nullptr, &fault))
    return 0;
  std::fprintf(stderr, "%s\n", fault.text.c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && std::strcmp(argv[1], "end-log") == 0) return end_log(argv[2]);
  const bool watch = argc == 6 && std::strcmp(argv[1], "watch") == 0;
  if (!watch && !(argc == 4 && std::strcmp(argv[1], "undo") == 0)) return 2;
  const std::string key = argv[3];
  if (!watch) return exit_code(undo_for(kVerbWaitMs, argv[2], key, nullptr));
  leave_control_group();
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) std::signal(signal, SIG_IGN);
  if (chdir("/") != 0 || last_word() == 'd') return 0;
  // Where the owner writes its lock before it links it.
  unlink((std::string(argv[2]) + "/" + key + ".lock." + argv[4]).c_str());
  const LeaseOwner owner{std::atoi(argv[4]), std::strtoull(argv[5], nullptr, 10)};
  // A failure may pass (xenstored slow, say); the files stay for the next verb if it does not.
  for (int tries = 0; tries < 20; ++tries) {
    const UndoResult result = undo_for(kSuspendWaitMs, argv[2], key, &owner);
    if (result != UndoResult::kFailed) return exit_code(result);
    usleep(250'000);
  }
  return 1;
}
