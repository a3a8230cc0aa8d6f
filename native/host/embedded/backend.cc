#include "host/embedded/backend.h"

#include <sys/prctl.h>

#include <chrono>

#include "host/embedded/domain.h"
#include "host/embedded/mix.h"

namespace dormouse::embedded {

void Backend::join() {
  if (thread_.joinable()) thread_.join();
}

void Backend::start() {
  {
    std::lock_guard<std::mutex> hold(lock_);
    attached_ = work_ = true;
    closing_ = ending_ = false;
  }
  thread_ = std::thread([this] { serve(); });
}

void Backend::ask_to_close() {
  std::lock_guard<std::mutex> hold(lock_);
  closing_ = true;
  changed_.notify_all();
}

void Backend::keep_open() {
  std::lock_guard<std::mutex> hold(lock_);
  closing_ = false;
}

void Backend::end() {
  {
    std::lock_guard<std::mutex> hold(lock_);
    ending_ = true;
    changed_.notify_all();
  }
  join();
  let_go();
}

void Backend::kick() {
  std::lock_guard<std::mutex> hold(lock_);
  work_ = true;
  changed_.notify_all();
}

void Backend::behave(const BackendBehaviour& how) {
  std::lock_guard<std::mutex> hold(lock_);
  how_ = how;
  changed_.notify_all();
}

bool Backend::attached() {
  std::lock_guard<std::mutex> hold(lock_);
  return attached_;
}

XenbusState Backend::state() {
  std::lock_guard<std::mutex> hold(lock_);
  if (!attached_) return kXenbusClosed;
  return closing_ ? kXenbusClosing : kXenbusConnected;
}

uint64_t Backend::seed() {
  std::lock_guard<std::mutex> hold(lock_);
  return how_.seed;
}

uint64_t Backend::draw(uint64_t seed) { return mix(seed + draws_++); }

// --- the thread

bool Backend::wait_for_work() {
  std::unique_lock<std::mutex> hold(lock_);
  changed_.wait(hold, [this] {
    const bool closes = closing_ && !how_.never_closes;
    return ending_ || closes || (work_ && how_.holds != BackendBehaviour::kRequests);
  });
  work_ = false;
  const bool closes = closing_ && !how_.never_closes;
  if (closes) attached_ = closing_ = false;  // from here it cannot be taken back
  return !ending_ && !closes;
}

bool Backend::wait_to_answer() {
  std::unique_lock<std::mutex> hold(lock_);
  if (how_.delay_us != 0)
    changed_.wait_for(hold, std::chrono::microseconds(how_.delay_us), [this] { return ending_; });
  changed_.wait(hold, [this] { return ending_ || how_.holds != BackendBehaviour::kAnswers; });
  return !ending_;
}

void Backend::serve() {
  prctl(PR_SET_NAME, thread_name_);
  while (wait_for_work())
    if (!serve_once()) break;
  {
    std::lock_guard<std::mutex> hold(lock_);
    attached_ = closing_ = false;
  }
  domain_.machine.on_event({domain_.domid, Event::kDevice, -1});
  domain_.kick();
}

void Backend::notify_guest() {
  {
    std::lock_guard<std::mutex> io(domain_.io_lock);
    SharedInfo& info = domain_.shared_info();
    __atomic_fetch_or(&info.evtchn_pending[port_ / 64], 1ull << port_ % 64, __ATOMIC_SEQ_CST);
    __atomic_fetch_or(&info.vcpu_info[0].pending_sel, 1ull << port_ / 64, __ATOMIC_SEQ_CST);
    __atomic_store_n(&info.vcpu_info[0].upcall_pending, 1, __ATOMIC_SEQ_CST);
  }
  domain_.kick();
}

}  // namespace dormouse::embedded
