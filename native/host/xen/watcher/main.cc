// Stands beside a process that works on a domain and undoes what that process leaves open if it
// dies.
//   watch RUN_DIR KEY PID START     standard input is a pipe from the owner, which ends the lease
//   by
//                                   'd' (all is done) or 'u' (undo what is open); end of file
//                                   without either means that it died
//   undo RUN_DIR KEY                undoes now if the owner is dead
// Exit: 0 done or nothing to do, 1 failed, 2 usage, 3 the owner is alive.
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "host/xen/watcher/undo.h"

using namespace dormouse::xen;

namespace {

// The owner's last word: 'd' all is done, 'u' undo what is open, 0 it died.
char last_word() {
  char byte = 0;
  while (read(STDIN_FILENO, &byte, 1) < 0 && errno == EINTR) {
  }
  return byte;
}

int exit_code(UndoResult result) {
  if (result == UndoResult::kAlive) return 3;
  return result == UndoResult::kFailed ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  const bool watch = argc == 6 && std::strcmp(argv[1], "watch") == 0;
  if (!watch && !(argc == 4 && std::strcmp(argv[1], "undo") == 0)) return 2;
  const std::string key = argv[3];
  if (!watch) return exit_code(undo_lease(argv[2], key, nullptr));
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) std::signal(signal, SIG_IGN);
  if (chdir("/") != 0 || last_word() == 'd') return 0;
  // Where the owner writes its lock before it links it.
  unlink((std::string(argv[2]) + "/" + key + ".lock." + argv[4]).c_str());
  const LeaseOwner owner{std::atoi(argv[4]), std::strtoull(argv[5], nullptr, 10)};
  // A failure may pass (xenstored slow, say); the files stay for the next verb if it does not.
  for (int tries = 0; tries < 20; ++tries) {
    const UndoResult result = undo_lease(argv[2], key, &owner);
    if (result != UndoResult::kFailed) return exit_code(result);
    usleep(250'000);
  }
  return 1;
}
