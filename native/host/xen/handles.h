// What this process holds open of Xen: one set of handles, shared by all that is built on it, and
// small helpers for hypercalls. Every function may be called from any thread.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "fault.h"
#include "host/xen/xen_headers.h"

namespace dormouse::xen {

class Handles {
 public:
  // HOST_UNAVAILABLE where the device nodes are missing or may not be opened.
  static std::shared_ptr<Handles> open(Fault* fault);
  ~Handles();
  Handles(const Handles&) = delete;
  Handles& operator=(const Handles&) = delete;

  xc_interface* xc() const { return xc_; }
  xencall_handle* calls() const { return xc_interface_xcall_handle(xc_); }
  xenforeignmemory_handle* memory() const { return memory_; }

 private:
  Handles() = default;
  xentoollog_logger* log_ = nullptr;
  xc_interface* xc_ = nullptr;
  xenforeignmemory_handle* memory_ = nullptr;
};

// Memory the hypervisor may read and write during a call.
class HypercallBuffer {
 public:
  HypercallBuffer(const Handles& xen, size_t bytes)
      : calls_(xen.calls()), data_(xencall_alloc_buffer(calls_, bytes)) {}
  ~HypercallBuffer() {
    if (data_) xencall_free_buffer(calls_, data_);
  }
  HypercallBuffer(const HypercallBuffer&) = delete;
  HypercallBuffer& operator=(const HypercallBuffer&) = delete;
  void* data() const { return data_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  xencall_handle* calls_;
  void* data_;
};

// Fills the fault from errno, naming what was tried on which domain; returns false.
bool raise_errno(Fault* fault, const char* what, uint32_t domid);

// Makes the domctl `cmd` on the domain. On failure errno is set.
int domctl(const Handles& xen, uint32_t domid, uint32_t cmd, xen_domctl* op);

// DOMAIN_NOT_FOUND where there is none of that id.
bool domain_info(const Handles& xen, uint32_t domid, xc_domaininfo_t* info, Fault* fault);

inline bool is_hvm(const xc_domaininfo_t& info) { return info.flags & XEN_DOMINF_hvm_guest; }

// A run of foreign frames in one mapping, unmapped with the object.
class ForeignPages {
 public:
  ForeignPages() = default;
  ~ForeignPages() { reset(); }
  ForeignPages(ForeignPages&& other) noexcept { *this = std::move(other); }
  ForeignPages& operator=(ForeignPages&& other) noexcept;

  // Maps frames[0, n). errors[i] is 0 or the errno of that page, which must not be touched then;
  // false (errno set) where nothing could be mapped.
  bool map(std::shared_ptr<Handles> xen, uint32_t domid, const xen_pfn_t* frames, size_t n,
           int* errors, bool writable = false);
  void reset();
  const uint8_t* data() const { return data_; }
  // Only of a mapping made writable.
  uint8_t* writable_data() { return data_; }
  size_t pages() const { return pages_; }

 private:
  std::shared_ptr<Handles> xen_;
  uint8_t* data_ = nullptr;
  size_t pages_ = 0;
};

}  // namespace dormouse::xen
