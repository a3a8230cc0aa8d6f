// Native objects that JavaScript holds by handle. Handles are valid in every thread of the process,
// which is how a worker reaches what the main thread opened.
//
// A handle is `kind << 32 | serial`, exact in a JavaScript number. No serial is given out twice, so
// that a handle of another kind, of something closed or of nothing is known for what it is.
#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>

#include "binding/arguments.h"
#include "binding/kinds.h"

namespace dormouse::binding {

template <typename T>
class Registry {
 public:
  static Registry& get() {
    static Registry instance;
    return instance;
  }
  uint64_t add(std::shared_ptr<T> object) {
    std::lock_guard<std::mutex> hold(lock_);
    need(last_ < UINT32_MAX, "no handle is left");
    objects_.emplace(last_ + 1, std::move(object));
    return uint64_t(kKind<T>.number) << 32 | ++last_;
  }
  // Refuses a handle that is not one of this kind, or is closed; `i` is the argument's place.
  std::shared_ptr<T> find(uint64_t handle, size_t i) {
    std::lock_guard<std::mutex> hold(lock_);
    const auto at = objects_.find(serial_of(handle, i));
    if (at == objects_.end()) refuse(place(i) + "the " + kKind<T>.name + " is closed");
    return at->second;
  }
  // False if it was released before. Refuses as find().
  bool release(uint64_t handle, size_t i) {
    std::shared_ptr<T> last;  // what goes with it is not done under the lock
    std::lock_guard<std::mutex> hold(lock_);
    const auto at = objects_.find(serial_of(handle, i));
    if (at == objects_.end()) return false;
    last = std::move(at->second);
    objects_.erase(at);
    return true;
  }
  size_t count() {
    std::lock_guard<std::mutex> hold(lock_);
    return objects_.size();
  }

 private:
  static_assert(kKind<T>.number != 0, "kinds.h knows no such kind");
  static std::string place(size_t i) { return "argument " + std::to_string(i + 1) + ": "; }

  uint32_t serial_of(uint64_t handle, size_t i) const {
    const auto serial = uint32_t(handle);
    if (handle >> 32 != kKind<T>.number || serial == 0 || serial > last_)
      refuse(place(i) + std::to_string(handle) + " is no handle of a " + kKind<T>.name);
    return serial;
  }

  std::mutex lock_;
  uint32_t last_ = 0;
  std::unordered_map<uint32_t, std::shared_ptr<T>> objects_;
};

// The object that argument i is a handle of.
template <typename T>
std::shared_ptr<T> held(const Napi::CallbackInfo& info, size_t i) {
  return Registry<T>::get().find(arg_u64(info, i), i);
}

template <typename T>
Napi::Value give(Napi::Env env, std::shared_ptr<T> object) {
  return num(env, Registry<T>::get().add(std::move(object)));
}

// (handle) -> whether it was open
template <typename T>
Napi::Value release(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), Registry<T>::get().release(arg_u64(info, 0), 0));
}

// What is at work in an object that one thread at a time may use, lane by lane.
class LaneUse {
 public:
  // Refuses a lane that is not below `lanes`, or at work already.
  LaneUse(uint64_t handle, uint32_t lane, uint32_t lanes);
  // All of them.
  explicit LaneUse(uint64_t handle);
  ~LaneUse();
  LaneUse(const LaneUse&) = delete;
  LaneUse& operator=(const LaneUse&) = delete;

 private:
  void take();
  const uint64_t handle_, lanes_;
};

// More lanes than any operation uses; each costs megabytes.
constexpr uint32_t kMaxLanes = 32;

}  // namespace dormouse::binding
