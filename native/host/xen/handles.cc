#include "host/xen/handles.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <string>

namespace dormouse::xen {

std::shared_ptr<Handles> Handles::open(Fault* fault) {
  std::shared_ptr<Handles> out(new Handles);
  // The library's own messages would go to standard error beside ours, which say the same.
  out->log_ =
      reinterpret_cast<xentoollog_logger*>(xtl_createlogger_stdiostream(stderr, XTL_CRITICAL, 0));
  out->xc_ = xc_interface_open(out->log_, out->log_, 0);
  if (out->xc_) out->memory_ = xenforeignmemory_open(out->log_, 0);
  if (out->memory_) return out;
  const int why = errno;
  fault->sys_errno = why;
  const char* hint = why == EACCES || why == EPERM ? "; run it as root" : "";
  fault->raise("HOST_UNAVAILABLE",
               std::string("Xen's device nodes cannot be opened: ") + std::strerror(why) + hint);
  return nullptr;
}

Handles::~Handles() {
  if (memory_) xenforeignmemory_close(memory_);
  if (xc_) xc_interface_close(xc_);
  if (log_) xtl_logger_destroy(log_);
}

namespace {

const char* code_of(int error) {
  switch (error) {
    case ESRCH:
      return "DOMAIN_NOT_FOUND";
    case ENOMEM:
      return "NO_MEMORY";
    case EPERM:
      return "HOST_UNAVAILABLE";
    case EACCES:  // what the hypervisor answers to another release's interface version
    case ENOSYS:
    case EOPNOTSUPP:
      return "HOST_LACKS";
    case EINVAL:
    case EBUSY:
      return "DOMAIN_WRONG_STATE";
    default:
      return "INTERNAL";
  }
}

}  // namespace

bool raise_errno(Fault* fault, const char* what, uint32_t domid) {
  const int error = errno;
  fault->sys_errno = error;
  std::string text =
      "domain " + std::to_string(domid) + ": " + what + ": " + std::string(std::strerror(error));
  if (error == EACCES) text += " (this build is for another release of Xen, or of no privilege)";
  return fault->raise(code_of(error), std::move(text));
}

int domctl(const Handles& xen, uint32_t domid, uint32_t cmd, xen_domctl* op) {
  op->cmd = cmd;
  op->domain = domid_t(domid);
  op->interface_version = XEN_DOMCTL_INTERFACE_VERSION;
  return xc_domctl(xen.xc(), op);
}

bool domain_info(const Handles& xen, uint32_t domid, xc_domaininfo_t* info, Fault* fault) {
  const int got = xc_domain_getinfolist(xen.xc(), domid, 1, info);
  if (got == 1 && info->domain == domid) return true;
  if (got >= 0) errno = ESRCH;
  return raise_errno(fault, "getdomaininfo", domid);
}

ForeignPages& ForeignPages::operator=(ForeignPages&& other) noexcept {
  if (this == &other) return *this;
  reset();
  xen_ = std::move(other.xen_);
  data_ = other.data_;
  pages_ = other.pages_;
  other.data_ = nullptr;
  other.pages_ = 0;
  return *this;
}

bool ForeignPages::map(std::shared_ptr<Handles> xen, uint32_t domid, const xen_pfn_t* frames,
                       size_t n, int* errors, bool writable) {
  reset();
  const int access = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  void* at = xenforeignmemory_map(xen->memory(), domid, access, n, frames, errors);
  if (!at) return false;
  xen_ = std::move(xen);
  data_ = static_cast<uint8_t*>(at);
  pages_ = n;
  return true;
}

void ForeignPages::reset() {
  if (data_) xenforeignmemory_unmap(xen_->memory(), data_, pages_);
  data_ = nullptr;
  pages_ = 0;
  xen_.reset();
}

}  // namespace dormouse::xen
