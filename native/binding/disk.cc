// What Node has no call for: giving a file the content of another one by sharing its blocks, and
// putting what the kernel caches of a block device where it belongs.
#include <errno.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>

#include "binding/entry.h"

namespace dormouse::binding {
namespace {

const char* code_of(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      return "NO_SPACE";
    // Of two file systems, or of one that shares no blocks.
    case EXDEV:
    case EOPNOTSUPP:
    case ENOTTY:
    case EINVAL:
    case ENOSYS:
      return "HOST_LACKS";
    default:
      return "IMAGE_WRITE_FAILED";
  }
}

Napi::Value answer(Napi::Env env, int done, const char* what) {
  if (done == 0) return env.Undefined();
  Fault fault;
  fault.sys_errno = errno;
  fault.raise(code_of(fault.sys_errno), std::string(what) + ": " + strerror(fault.sys_errno));
  return failed(env, fault);
}

// clone(to, from, bytes): the first bytes of `to` become those of `from` and share its blocks; 0:
// all of them.
Napi::Value clone(const Napi::CallbackInfo& info) {
  file_clone_range range = {};
  range.src_fd = int64_t(arg_u32(info, 1));
  range.src_length = arg_u64(info, 2);
  return answer(info.Env(), ioctl(int(arg_u32(info, 0)), FICLONERANGE, &range),
                "the blocks cannot be shared");
}

// flushDevice(fd): what is cached of a block device is written, and read anew next time.
Napi::Value flush_device(const Napi::CallbackInfo& info) {
  return answer(info.Env(), ioctl(int(arg_u32(info, 0)), BLKFLSBUF, 0),
                "the cache of the device cannot be emptied");
}

// deviceBytes(fd): how large a block device is.
Napi::Value device_bytes(const Napi::CallbackInfo& info) {
  uint64_t bytes = 0;
  if (ioctl(int(arg_u32(info, 0)), BLKGETSIZE64, &bytes) == 0)
    return Napi::Number::New(info.Env(), double(bytes));
  return answer(info.Env(), -1, "the size of the device cannot be read");
}

}  // namespace

Napi::Object init_disk(Napi::Env env) {
  Napi::Object exports = Napi::Object::New(env);
  add<clone>(exports, "clone");
  add<flush_device>(exports, "flushDevice");
  add<device_bytes>(exports, "deviceBytes");
  return exports;
}
}  // namespace dormouse::binding
