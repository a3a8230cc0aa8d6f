// Native objects that JavaScript holds by number. The numbers are valid in every thread of the
// process, which is how a worker reaches what the main thread opened.
#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>

namespace dormouse::binding {

template <typename T>
class Registry {
 public:
  static Registry& get() {
    static Registry instance;
    return instance;
  }
  uint32_t add(std::shared_ptr<T> object) {
    std::lock_guard<std::mutex> hold(lock_);
    objects_[++last_] = std::move(object);
    return last_;
  }
  // Null for a number never given out or already released.
  std::shared_ptr<T> find(uint32_t id) {
    std::lock_guard<std::mutex> hold(lock_);
    auto at = objects_.find(id);
    return at == objects_.end() ? nullptr : at->second;
  }
  bool release(uint32_t id) {
    std::lock_guard<std::mutex> hold(lock_);
    return objects_.erase(id) == 1;
  }
  size_t count() {
    std::lock_guard<std::mutex> hold(lock_);
    return objects_.size();
  }

 private:
  std::mutex lock_;
  uint32_t last_ = 0;
  std::unordered_map<uint32_t, std::shared_ptr<T>> objects_;
};

}  // namespace dormouse::binding
