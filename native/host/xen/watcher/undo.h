// Undoes what a process left open on a domain when it died: the journal it kept says what.
//
// Files of a lease, in the run directory. KEY is the domain's id, or build-UUID for one that is
// being built and has no id yet:
//   KEY.lock     one line: PID START-TIME UUID OPERATION. Its owner holds the lease.
//   KEY.journal  a line for each thing to undo: logdirty, suspend, pause; destroy for a domain
//                that is to end instead; `saved destroy|pause IMAGE-ID PATH` for one that is to
//                end, or be left paused, if that image is there; or build, with `was DOMID` for
//                each domain that had the uuid before, and `group PID START-TIME` for xl, which
//                leads a process group. Written before the thing is done, so that at worst
//                something is undone that was not yet done.
//   KEY.dir      of a build: the files it hands to xl
#pragma once
#include <cstdint>
#include <string>

namespace dormouse::xen {

struct LeaseOwner {
  int pid = 0;
  unsigned long long start_time = 0;  // clock ticks since boot, as /proc/PID/stat has it
};

enum class UndoResult {
  kDone,     // nothing of the lease is left; what was undone went to standard output
  kAlive,    // the owner lives: nothing was touched
  kNoLease,  // there is no such lease
  kFailed,   // standard error says why; the files stay
};

// True if that very process still runs (a zombie does not).
bool is_alive(const LeaseOwner& owner);

// With `dead_owner` that owner is known to be dead and a lease of any other is left alone; without,
// the owner named by the lock is looked at. Waits for another undo of the same lease to end.
UndoResult undo_lease(const std::string& run_dir, const std::string& key,
                      const LeaseOwner* dead_owner);

}  // namespace dormouse::xen
