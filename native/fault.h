// One typed failure, carried by value out of every native function that can fail.
#pragma once
#include <cstdint>
#include <string>

namespace dormouse {

// What went wrong. `code` is a name from src/errors.ts; the numbers say where.
struct Fault {
  static constexpr uint64_t kNowhere = ~0ull;

  const char* code = nullptr;
  std::string text;
  uint64_t pfn = kNowhere;
  uint64_t offset = kNowhere;
  uint64_t chunk = kNowhere;
  int sys_errno = 0;

  explicit operator bool() const { return code != nullptr; }

  // Fills the fault and returns false, so that callers can `return fault->raise(...)`.
  bool raise(const char* fault_code, std::string what) {
    code = fault_code;
    text = std::move(what);
    return false;
  }
};

}  // namespace dormouse
