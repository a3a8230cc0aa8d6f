// The last changes of a domain that goes on, copied while it stands still.
#pragma once
#include <memory>
#include <utility>

#include "host/stopped_work.h"
#include "step/live_pass.h"

namespace dormouse::step {

class CaptureWork : public host::StoppedWork {
 public:
  CaptureWork(std::shared_ptr<LivePass> live, std::shared_ptr<host::DomainMemory> memory,
              const CaptureHow& how)
      : live_(std::move(live)), memory_(std::move(memory)), how_(how) {}

  uint64_t logged_pfns() const override {
    return live_->by_content() ? 0 : live_->pending().nr_pfns();
  }
  bool run(uint8_t* log, bool* done, Fault* fault) override {
    if (log && !live_->merge_log(*memory_, log, fault)) return false;
    if (!live_->capture(*memory_, how_, fault)) return false;
    *done = live_->copied();
    return true;
  }
  uint64_t copying_ns() const override { return live_->copying_ns(); }

 private:
  std::shared_ptr<LivePass> live_;
  std::shared_ptr<host::DomainMemory> memory_;
  CaptureHow how_;
};

}  // namespace dormouse::step
