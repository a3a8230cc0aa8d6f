#include "host/embedded/machine.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "host/embedded/mix.h"

namespace dormouse::embedded {

bool Machine::init(uint64_t frames, uint32_t seed, Fault* fault) {
  frames_ = frames;
  seed_ = seed;
  if (!memory.create("dormouse-memory", frames * kPageSize, true, fault)) return false;
  if (!m2p_array.create("dormouse-m2p", frames * 8, false, fault)) return false;
  if (!states.create("dormouse-states", frames * 8, false, fault)) return false;
  if (!touched_array.create("dormouse-touched", frames, false, fault)) return false;
  frame_.reset(static_cast<Frame*>(std::calloc(frames, sizeof(Frame))));
  if (!frame_) return fault->raise("NO_MEMORY", "cannot keep track of the machine's frames");
  window_.resize((frames + kWindowFrames - 1) / kWindowFrames);
  free_ = frames - kOwnFrames;
  std::memset(m2p_array.data(), 0xff, frames * 8);
  scrubber_ = std::thread([this] { scrub_loop(); });
  return true;
}

Machine::~Machine() {
  {
    std::lock_guard<std::mutex> hold(lock_);
    ending_ = true;
  }
  scrub_changed_.notify_all();
  if (scrubber_.joinable()) scrubber_.join();
}

uint64_t Machine::free_frames() {
  std::lock_guard<std::mutex> hold(lock_);
  return free_ + unscrubbed_;
}

void Machine::open_window(uint64_t window) {
  const uint64_t first = std::max(window * kWindowFrames, kOwnFrames);
  const uint64_t end = std::min((window + 1) * kWindowFrames, frames_);
  std::vector<uint32_t>& list = window_[window];
  list.reserve(end - first);
  for (uint64_t mfn = first; mfn < end; mfn++) list.push_back(uint32_t(mfn));
  for (size_t i = list.size(); i > 1; i--)
    std::swap(list[i - 1], list[mix(seed_ + (++draws_ << 32)) % i]);
}

bool Machine::allocate(uint16_t domid, uint64_t n, uint32_t* mfns, Fault* fault) {
  std::unique_lock<std::mutex> hold(lock_);
  if (n <= free_ + unscrubbed_)
    scrub_changed_.wait(hold, [&] { return n <= free_ || unscrubbed_ == 0; });
  if (n > free_)
    return fault->raise("NO_MEMORY", "needs " + std::to_string(n) + " frames, the machine has " +
                                         std::to_string(free_) + " free");
  free_ -= n;
  for (uint64_t given = 0; given < n;) {
    if (lowest_ == opened_) open_window(opened_++);
    std::vector<uint32_t>& list = window_[lowest_];
    if (list.empty()) {
      lowest_++;
      continue;
    }
    const uint32_t mfn = list.back();
    list.pop_back();
    frame_[mfn] = Frame{};
    frame_[mfn].domid = domid;
    mfns[given++] = mfn;
  }
  return true;
}

// Whole runs go back to the system; frames never written are zero already.
void Machine::scrub(const std::vector<uint32_t>& sorted) {
  for (size_t i = 0; i < sorted.size();) {
    size_t end = i + 1;
    while (end < sorted.size() && sorted[end] == sorted[end - 1] + 1) end++;
    const size_t run = end - i;
    const uint32_t first = sorted[i];
    bool any = false;
    for (size_t k = 0; k < run; k++) {
      any |= touched(first + k).load(std::memory_order_relaxed) != 0;
      touched(first + k).store(0, std::memory_order_relaxed);
    }
    if (any) memory.punch(first * kPageSize, run * kPageSize);
    i = end;
  }
}

void Machine::free(std::vector<uint32_t> mfns) {
  if (mfns.empty()) return;
  std::lock_guard<std::mutex> hold(lock_);
  for (const uint32_t mfn : mfns) {
    frame_[mfn] = Frame{};
    m2p(mfn).store(kNoPfn, std::memory_order_relaxed);
  }
  unscrubbed_ += mfns.size();
  to_scrub_.push_back(std::move(mfns));
  scrub_changed_.notify_all();
}

void Machine::scrub_loop() {
  std::unique_lock<std::mutex> hold(lock_);
  for (;;) {
    scrub_changed_.wait(hold, [&] { return ending_ || !to_scrub_.empty(); });
    if (ending_) return;
    std::vector<uint32_t> mfns = std::move(to_scrub_.back());
    to_scrub_.pop_back();
    hold.unlock();
    std::sort(mfns.begin(), mfns.end());
    scrub(mfns);
    hold.lock();
    for (const uint32_t mfn : mfns) {
      const uint64_t window = mfn / kWindowFrames;
      std::vector<uint32_t>& list = window_[window];
      list.push_back(mfn);
      std::swap(list.back(), list[mix(seed_ + (++draws_ << 32)) % list.size()]);
      lowest_ = std::min(lowest_, window);
    }
    free_ += mfns.size();
    unscrubbed_ -= mfns.size();
    scrub_changed_.notify_all();
  }
}

}  // namespace dormouse::embedded
