// Undoes what a process left open on a domain when it died: the journal it kept says what.
//
// Files of a lease, in the run directory. KEY is the domain's id, or build-UUID for one that is
// being built and has no id yet:
//   KEY.lock     one line: PID START-TIME UUID OPERATION. Its owner holds the lease.
//   KEY.journal  a line for each thing to undo. Written before the thing is done, so that at worst
//                something is undone that was not yet done:
//                  logdirty
//                  suspend WORD          the guest is asked to suspend; at the same moment WORD is
//                                        written to its node dormouse/suspend in xenstore
//                  suspended             it was seen suspended
//                  pause                 paused by us
//                  pause over            the same, perhaps: it stood paused by somebody else before
//                  destroy               it is to end instead
//                  saved destroy|pause IMAGE-ID PATH   it is to end, or to be left paused, if that
//                                        image is there
//                  monitor PID START-TIME              the xl process that watches it is stopped
//                  build, with `was DOMID` for each domain that had the uuid before, and
//                  `group PID START-TIME` for xl, which leads a process group
//   KEY.dir      of a build: the files it hands to xl
//   KEY.watch    locked by whoever waits for a guest that took the request to suspend
#pragma once
#include <string>

#include "host/xen/watcher/journal.h"

namespace dormouse::xen {

enum class UndoResult {
  kDone,     // nothing of the lease is left; what was undone went to standard output
  kAlive,    // the owner lives: nothing was touched
  kNoLease,  // there is no such lease
  kFailed,   // standard error says why; the files stay
  kPending,  // the guest is on its way to its suspend point; the files stay
};

// True if that very process still runs (a zombie does not).
bool is_alive(const LeaseOwner& owner);

// With `dead_owner` that owner is known to be dead and a lease of any other is left alone; without,
// the owner named by the lock is looked at. Waits for another undo of the same lease to end.
UndoResult undo_lease(const std::string& run_dir, const std::string& key,
                      const LeaseOwner* dead_owner);

// After kPending: goes on trying in a process of its own until nothing is left, unless another one
// does so already. Returns at once.
void keep_trying(const std::string& run_dir, const std::string& key);

}  // namespace dormouse::xen
