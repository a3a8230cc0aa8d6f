// An exclusive advisory lock on an open file, which the kernel drops when its holder dies. Node has
// no call for it, and a lock made of names alone can be left behind or stolen.
#include <errno.h>
#include <string.h>
#include <sys/file.h>

#include "binding/entry.h"

namespace dormouse::binding {
namespace {

// tryLock(fd): false where another open file of this path holds the lock.
Napi::Value try_lock(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (flock(int(arg_u32(info, 0)), LOCK_EX | LOCK_NB) == 0) return Napi::Boolean::New(env, true);
  if (errno == EWOULDBLOCK || errno == EINTR) return Napi::Boolean::New(env, false);
  Fault fault;
  fault.sys_errno = errno;
  fault.raise("INTERNAL", std::string("flock: ") + strerror(fault.sys_errno));
  throw_fault(env, fault);
  return env.Undefined();
}

}  // namespace

Napi::Object init_file_lock(Napi::Env env) {
  Napi::Object exports = Napi::Object::New(env);
  add<try_lock>(exports, "tryLock");
  return exports;
}
}  // namespace dormouse::binding
