// What is done with a domain's memory while the domain stands still, whoever brings it to that.
#pragma once
#include <cstdint>

#include "fault.h"

namespace dormouse::host {

class StoppedWork {
 public:
  virtual ~StoppedWork() = default;
  // pfns that a log of changes is to name; 0 where none is wanted.
  virtual uint64_t logged_pfns() const = 0;
  // Does it, given the log: one bit a pfn, null where none is wanted. `*done` is false where it was
  // too much for a pause.
  virtual bool run(uint8_t* log, bool* done, Fault* fault) = 0;
  // What copying took of run(); the rest went into finding what to copy.
  virtual uint64_t copying_ns() const = 0;
};

}  // namespace dormouse::host
