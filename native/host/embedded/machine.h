// Machine memory: frames, who owns them, what they are used as, and the arrays that tools map.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "host/embedded/shared_array.h"
#include "host/embedded/shared_layout.h"

namespace dormouse::embedded {

// What a frame is used as. A frame has one type as long as its type count is not zero.
enum FrameType : uint8_t { kTypeNone = 0, kTypeL1, kTypeL2, kTypeL3, kTypeL4, kTypeWritable };

// Guarded by the mmu lock of the domain that owns the frame. All zero is a free frame.
struct Frame {
  uint32_t refs;        // validated page-table entries that map it
  uint32_t type_count;  // uses as `type`
  uint16_t domid;       // 0: nobody's
  uint8_t type;
  bool pinned : 1;
  bool lifted : 1;  // a table whose entries count for nothing meanwhile
};

struct Event {
  uint16_t domid;
  enum Kind : uint8_t { kSuspendAck, kShutdown, kDevice } kind;
  int reason;
};

class Machine {
 public:
  // Frames [0, kOwnFrames) are the hypervisor's own and never handed out.
  static constexpr uint64_t kOwnFrames = 16;
  // Frames are handed out in shuffled order within a window, windows in order: MFNs differ from
  // PFNs, yet huge pages fill up.
  static constexpr uint64_t kWindowFrames = 16384;

  ~Machine();
  bool init(uint64_t frames, uint32_t seed, Fault* fault);

  // n zeroed frames for a domain, or none and NO_MEMORY. Waits for frames that are being scrubbed
  // where the others are not enough.
  bool allocate(uint16_t domid, uint64_t n, uint32_t* mfns, Fault* fault);
  // Takes frames back. They are nobody's from here, and are scrubbed beside the caller before they
  // are handed out again: giving pages back to the system takes longer than a hypercall may.
  void free(std::vector<uint32_t> mfns);

  uint64_t frames() const { return frames_; }
  // Counts those that are still being scrubbed.
  uint64_t free_frames();
  uint8_t* page(uint64_t mfn) const { return memory.data() + mfn * kPageSize; }
  uint64_t* words(uint64_t mfn) const { return reinterpret_cast<uint64_t*>(page(mfn)); }
  std::atomic<uint64_t>& m2p(uint64_t mfn) const {
    return m2p_array.as<std::atomic<uint64_t>>()[mfn];
  }
  std::atomic<uint64_t>& cow_word(uint64_t mfn) const {
    return states.as<std::atomic<uint64_t>>()[mfn];
  }
  std::atomic<uint8_t>& touched(uint64_t mfn) const {
    return touched_array.as<std::atomic<uint8_t>>()[mfn];
  }
  Frame& frame(uint64_t mfn) { return frame_[mfn]; }
  bool owned_by(uint64_t mfn, uint16_t domid) const {
    return mfn < frames_ && frame_[mfn].domid == domid;
  }
  uint64_t next_epoch() { return ++epoch_; }
  uint64_t epochs_left() const { return CowWord::kLastEpoch - epoch_; }

  SharedArray memory, m2p_array, states, touched_array;
  std::function<void(const Event&)> on_event;

 private:
  void open_window(uint64_t window);
  void scrub(const std::vector<uint32_t>& sorted);
  void scrub_loop();

  uint64_t frames_ = 0;
  uint32_t seed_ = 0;
  uint64_t draws_ = 0;
  uint64_t epoch_ = 0;
  std::mutex lock_;
  std::condition_variable scrub_changed_;
  std::vector<std::vector<uint32_t>> to_scrub_;  // freed, content not gone yet
  uint64_t unscrubbed_ = 0;                      // frames in to_scrub_ and in the scrubber's hands
  bool ending_ = false;
  std::thread scrubber_;
  std::unique_ptr<Frame[], void (*)(void*)> frame_{nullptr, std::free};  // zero pages until used
  std::vector<std::vector<uint32_t>> window_;  // free frames of each window that was opened
  uint64_t opened_ = 0;                        // windows opened so far
  uint64_t lowest_ = 0;                        // no window below it has a free frame
  uint64_t free_ = 0;
};

}  // namespace dormouse::embedded
