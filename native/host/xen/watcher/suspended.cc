#include "host/xen/watcher/suspended.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "host/xen/control.h"
#include "host/xen/other_saver.h"

namespace dormouse::xen {
namespace {

struct CloseStore {
  void operator()(xs_handle* store) const { xs_close(store); }
};
using Store = std::unique_ptr<xs_handle, CloseStore>;

bool is_suspended(const xc_domaininfo_t& info) {
  const uint32_t reason = info.flags >> XEN_DOMINF_shutdownshift & XEN_DOMINF_shutdownmask;
  return (info.flags & XEN_DOMINF_shutdown) && reason == SHUTDOWN_suspend;
}

// The node's value; empty where there is none. False where xenstored does not say.
bool read_node(xs_handle* store, xs_transaction_t tx, const std::string& path, std::string* out) {
  unsigned length = 0;
  char* const value = static_cast<char*>(xs_read(store, tx, path.c_str(), &length));
  if (!value) return errno == ENOENT;
  out->assign(value, length);
  std::free(value);
  return true;
}

// Blanks control/shutdown if the guest has not taken the request yet, which was then never asked.
bool withdraw_request(xs_handle* store, const std::string& path, const std::string& asked_path) {
  for (int tries = 0; tries < 100; ++tries) {
    const xs_transaction_t tx = xs_transaction_start(store);
    if (tx == XBT_NULL) return false;
    std::string value;
    const bool waiting = read_node(store, tx, path, &value) && value == "suspend";
    if (waiting) {
      xs_write(store, tx, path.c_str(), "", 0);
      xs_rm(store, tx, asked_path.c_str());
    }
    if (xs_transaction_end(store, tx, !waiting)) return waiting;
    if (errno != EAGAIN) return false;
  }
  return false;
}

Undone failed(const char* what) {
  std::fprintf(stderr, "%s: %s\n", what, std::strerror(errno));
  return Undone::kFailed;
}

Undone resume(const Handles& xen, uint32_t domid, xs_handle* store) {
  // Its saver resumes or ends it.
  if (const int pid = other_saver(domid)) {
    std::printf("left it suspended to process %d, which saves it\n", pid);
    return Undone::kYes;
  }
  Fault fault;
  if (!resume_in_place(xen, domid, &fault)) {
    std::fprintf(stderr, "%s\n", fault.text.c_str());
    return Undone::kFailed;
  }
  xs_resume_domain(store, domid);
  std::printf("resumed it\n");
  return Undone::kYes;
}

}  // namespace

Undone undo_suspend(const Handles& xen, uint32_t domid, const Journal& journal) {
  const Store store(xs_open(0));
  if (!store) return failed("xenstored cannot be reached");
  const std::string home = "/local/domain/" + std::to_string(domid);
  // Looked at in this order: the request of a guest that suspends in between is gone.
  // Twice, as the last thing that a dead process asked of xenstored may be done between the two.
  const std::string asked_path = home + "/dormouse/suspend";
  std::string asked;
  for (int looks = 0; looks < 2 && (looks == 0 || asked != journal.suspend); ++looks)
    if (!read_node(store.get(), XBT_NULL, asked_path, &asked))
      return failed("xenstored does not answer");
  const bool withdrawn = asked == journal.suspend && !journal.suspended &&
                         withdraw_request(store.get(), home + "/control/shutdown", asked_path);
  if (withdrawn) std::printf("withdrew the request to suspend\n");
  xc_domaininfo_t info;
  Fault fault;
  if (!domain_info(xen, domid, &info, &fault)) {
    if (std::strcmp(fault.code, "DOMAIN_NOT_FOUND") == 0) return Undone::kYes;
    std::fprintf(stderr, "%s\n", fault.text.c_str());
    return Undone::kFailed;
  }
  const bool never_asked = asked != journal.suspend && !journal.suspended;
  if (is_suspended(info) && !never_asked && !withdrawn) return resume(xen, domid, store.get());
  if (info.flags & (XEN_DOMINF_shutdown | XEN_DOMINF_dying)) return Undone::kYes;
  // One that was seen suspended and goes on was resumed.
  return never_asked || withdrawn || journal.suspended ? Undone::kYes : Undone::kPending;
}

}  // namespace dormouse::xen
