#include "limits/limits.h"

#include "binding/napi_util.h"

namespace dormouse::binding {
namespace {

Napi::Number real(Napi::Env env, double value) { return Napi::Number::New(env, value); }

// (bytes)
Napi::Value memory(const Napi::CallbackInfo& info) {
  limits::MemoryLimits found;
  Fault fault;
  const Napi::Env env = info.Env();
  if (!limits::measure_memory(arg_u64(info, 0), &found, &fault)) {
    throw_fault(env, fault);
    return env.Undefined();
  }
  Napi::Object out = Napi::Object::New(env);
  out.Set("memcpyGbps", real(env, found.memcpy_gbps));
  out.Set("scatteredCopyUs", real(env, found.scattered_copy_us));
  out.Set("zeroScanGbps", real(env, found.zero_scan_gbps));
  out.Set("hashGbps", real(env, found.hash_gbps));
  return out;
}

// (bytes, huge pages)
Napi::Value first_touch(const Napi::CallbackInfo& info) {
  const bool huge = info.Length() > 1 && info[1].ToBoolean();
  return real(info.Env(),
              limits::first_touch_us(arg_u64(info, 0), huge ? limits::Region::kHugePages
                                                            : limits::Region::kSmallPages));
}

// (bytes, threads)
Napi::Value shared_first_touch(const Napi::CallbackInfo& info) {
  const uint64_t bytes = arg_u64(info, 0);
  const uint32_t threads = arg_u32(info, 1);
  DM_ASSERT(bytes >= (2 << 20) && bytes % (2 << 20) == 0 && threads >= 1 && threads <= 64);
  return real(info.Env(), limits::shared_first_touch_gbps(bytes, int(threads)));
}

// (nrPfns, window, pfns in order)
Napi::Value canonicalise(const Napi::CallbackInfo& info) {
  const uint64_t nr_pfns = arg_u64(info, 0), window = arg_u64(info, 1);
  DM_ASSERT(nr_pfns % 512 == 0 && window > 0 && info.Length() == 3);
  return real(info.Env(), limits::canonicalise_gbps(nr_pfns, window, info[2].ToBoolean()));
}

// (data, threads, acceleration)
Napi::Value lz4(const Napi::CallbackInfo& info) {
  DM_ASSERT(info.Length() == 3 && info[0].IsTypedArray());
  const auto data = info[0].As<Napi::Uint8Array>();
  const uint32_t threads = arg_u32(info, 1);
  DM_ASSERT(threads >= 1 && threads <= 64 && data.ByteLength() > 0);
  const auto found =
      limits::measure_codec(data.Data(), data.ByteLength(), int(threads), int(arg_u32(info, 2)));
  Napi::Object out = Napi::Object::New(info.Env());
  out.Set("compressGbps", real(info.Env(), found.compress_gbps));
  out.Set("decompressGbps", real(info.Env(), found.decompress_gbps));
  out.Set("storedShare", real(info.Env(), found.stored_share));
  return out;
}

// (directory, bytes, in flight)
Napi::Value direct_write(const Napi::CallbackInfo& info) {
  DM_ASSERT(info.Length() == 3 && info[0].IsString());
  const std::string dir = info[0].As<Napi::String>().Utf8Value();
  const uint64_t bytes = arg_u64(info, 1);
  const uint32_t in_flight = arg_u32(info, 2);
  DM_ASSERT(bytes % (4 << 20) == 0 && in_flight >= 1 && in_flight <= 64);
  double gbps = 0;
  Fault fault;
  if (limits::direct_write_gbps(dir, bytes, int(in_flight), &gbps, &fault))
    return real(info.Env(), gbps);
  throw_fault(info.Env(), fault);
  return info.Env().Undefined();
}

}  // namespace

Napi::Object init_limits(Napi::Env env) {
  Napi::Object exports = Napi::Object::New(env);
  exports.Set("memory", Napi::Function::New(env, memory));
  exports.Set("firstTouchUs", Napi::Function::New(env, first_touch));
  exports.Set("sharedFirstTouchGbps", Napi::Function::New(env, shared_first_touch));
  exports.Set("canonicaliseGbps", Napi::Function::New(env, canonicalise));
  exports.Set("lz4", Napi::Function::New(env, lz4));
  exports.Set("directWriteGbps", Napi::Function::New(env, direct_write));
  return exports;
}

}  // namespace dormouse::binding
