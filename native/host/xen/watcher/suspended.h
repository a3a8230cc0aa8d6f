// Gives a guest back that a dead process asked to suspend.
#pragma once
#include "host/xen/handles.h"
#include "host/xen/watcher/journal.h"

namespace dormouse::xen {

enum class Undone {
  kYes,
  kFailed,   // standard error says why
  kPending,  // the guest took the request and has not suspended: it must be resumed when it does
};

// One look, and what can be done at once; what was done goes to standard output.
Undone undo_suspend(const Handles& xen, uint32_t domid, const Journal& journal);

}  // namespace dormouse::xen
