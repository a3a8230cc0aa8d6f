// vCPU threads, and how they are stopped and let go.
//
// The rule: a vCPU executes a step only after it stored state kRun and then read stop_requests as
// zero. The stopper raises stop_requests and then waits until it has seen each vCPU in another
// state. Both sides are sequentially consistent, so a vCPU seen asleep is stopped without being
// woken: should it wake, it finds the request before its next step.
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <time.h>

#include <algorithm>

#include "host/embedded/domain.h"
#include "host/embedded/futex.h"

namespace dormouse::embedded {

namespace {

constexpr uint64_t kNsPerSecond = 1000000000ull;
constexpr uint64_t kBatchSteps = 4096;
constexpr uint64_t kTickNs = 1000000;     // a vCPU with a rate works in bursts this far apart
constexpr uint64_t kBacklogNs = 5000000;  // a step overdue by more is not made up for
constexpr int kSpins = 2000;

uint64_t clock_ns(clockid_t clock) {
  timespec at;
  clock_gettime(clock, &at);
  return uint64_t(at.tv_sec) * kNsPerSecond + uint64_t(at.tv_nsec);
}

void acknowledge(Domain& dom) {
  dom.acks++;
  if (dom.ack_waiters) futex_wake(&dom.acks);
  dom.finish_shutdown_if_still();
}

void wait_until_still(Domain& dom, Vcpu& vcpu) {
  for (int spin = 0; vcpu.state == Vcpu::kRun; spin++) {
    if (spin < kSpins) {
      __builtin_ia32_pause();
      continue;
    }
    const uint32_t seen = dom.acks;
    if (vcpu.state == Vcpu::kRun) futex_wait(&dom.acks, seen);
  }
}

}  // namespace

void Domain::hold() {
  stop_requests++;
  ack_waiters++;
  for (const auto& vcpu : vcpus) wait_until_still(*this, *vcpu);
  ack_waiters--;
}

void Domain::release() {
  finish_shutdown_if_still();
  if (--stop_requests != 0) return;
  for (const auto& vcpu : vcpus) {
    uint32_t parked = Vcpu::kParked;
    if (vcpu->state.compare_exchange_strong(parked, Vcpu::kRun)) futex_wake(&vcpu->state);
  }
}

void Domain::kick() {
  for (const auto& vcpu : vcpus) {
    vcpu->wake++;
    futex_wake(&vcpu->wake);
  }
}

void Domain::stop_threads() {
  exiting = true;
  kick();
  for (const auto& vcpu : vcpus) {
    uint32_t parked = Vcpu::kParked;
    if (vcpu->state.compare_exchange_strong(parked, Vcpu::kRun)) futex_wake(&vcpu->state);
  }
  for (const auto& vcpu : vcpus) vcpu->join();
}

void Domain::guest_shutdown(int reason, const std::string& text) {
  std::lock_guard<std::mutex> lock(shutdown_lock);
  if (shutdown_reason >= 0) return;
  shutdown_reason = reason;
  shutdown_pending = true;
  crash_text = text;
  stop_requests++;
}

void Domain::finish_shutdown_if_still() {
  if (!shutdown_pending) return;
  std::lock_guard<std::mutex> lock(shutdown_lock);
  if (!shutdown_pending) return;
  for (const auto& vcpu : vcpus)
    if (vcpu->state == Vcpu::kRun) return;
  shutdown_pending = false;
  machine.on_event({domid, Event::kShutdown, shutdown_reason});
}

void Vcpu::start() {
  thread_ = std::thread([this] { run(); });
}

void Vcpu::join() {
  if (thread_.joinable()) thread_.join();
}

uint64_t Vcpu::cpu_time_ns() const {
  clockid_t clock;
  auto& thread = const_cast<std::thread&>(thread_);
  if (!thread.joinable() || pthread_getcpuclockid(thread.native_handle(), &clock) != 0) return 0;
  return clock_ns(clock);
}

bool Vcpu::park() {
  state = kParked;
  acknowledge(domain);
  while (state == kParked && !domain.exiting) {
    if (domain.stop_requests == 0) break;
    futex_wait(&state, kParked);
  }
  return !domain.exiting;
}

void Vcpu::sleep(State as, uint64_t ns) {
  const uint32_t seen = wake;
  state = as;
  acknowledge(domain);
  if (!domain.exiting) futex_wait(&wake, seen, ns);
}

// How many steps are due; 0 if none is yet.
uint64_t Vcpu::pace(uint64_t now) {
  const uint64_t rate = domain.guest->rate;
  if (rate == 0) return kBatchSteps;
  const uint64_t interval = std::max<uint64_t>(kNsPerSecond / rate, 1);
  if (due_ns_ + kBacklogNs < now)
    due_ns_ = now > kBacklogNs ? now - std::min(interval, kBacklogNs) : now;
  if (now < due_ns_) return 0;
  const uint64_t due = (now - due_ns_) / interval + 1;
  due_ns_ += due * interval;
  return due;
}

Outcome Vcpu::step() {
  sync_tlb();
  return run_program(*this);
}

void Vcpu::run() {
  prctl(PR_SET_NAME, "dormouse-vcpu");
  for (;;) {
    state = kRun;
    if (domain.exiting) return;
    if (domain.stop_requests) {
      if (!park()) return;
      continue;
    }
    const uint64_t now = clock_ns(CLOCK_MONOTONIC);
    uint64_t batch = pace(now);
    if (batch == 0) {
      sleep(kAsleep, std::max(due_ns_ - now, kTickNs));
      continue;
    }
    Outcome outcome = Outcome::go_on;
    while (batch-- && outcome == Outcome::go_on && !domain.stop_requests) outcome = step();
    if (outcome == Outcome::block) sleep(kBlocked, 0);
    if (outcome == Outcome::wait) sleep(kAsleep, kTickNs);
  }
}

}  // namespace dormouse::embedded
