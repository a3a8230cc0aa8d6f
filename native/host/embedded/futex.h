// Waiting on a 32-bit word without a lock (futex(2)), within this process.
#pragma once
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace dormouse::embedded {

// Returns at once if the word is not `expected`; else when woken, after `ns` (0 = never), or for
// no reason at all.
inline void futex_wait(std::atomic<uint32_t>* word, uint32_t expected, uint64_t ns = 0) {
  timespec limit{time_t(ns / 1000000000ull), long(ns % 1000000000ull)};
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, ns ? &limit : nullptr, nullptr, 0);
}

inline void futex_wake(std::atomic<uint32_t>* word) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1 << 30, nullptr, nullptr, 0);
}

}  // namespace dormouse::embedded
