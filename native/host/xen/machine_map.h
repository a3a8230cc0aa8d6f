// The hypervisor's machine-to-physical table, mapped read-only once per process.
#pragma once
#include "host/xen/handles.h"

namespace dormouse::xen {

class MachineMap {
 public:
  // The one of this process, mapped at first use and kept while somebody holds it.
  static std::shared_ptr<MachineMap> get(const std::shared_ptr<Handles>& xen, Fault* fault);
  ~MachineMap();
  MachineMap(const MachineMap&) = delete;
  MachineMap& operator=(const MachineMap&) = delete;

  // Entry of every MFN below frames(); holes of the machine read as 0.
  const uint64_t* table() const { return table_; }
  uint64_t frames() const { return frames_; }

 private:
  MachineMap() = default;
  bool map(const std::shared_ptr<Handles>& xen, Fault* fault);
  std::shared_ptr<Handles> xen_;
  uint64_t* table_ = nullptr;
  uint64_t frames_ = 0;
  size_t reserved_bytes_ = 0;
};

}  // namespace dormouse::xen
