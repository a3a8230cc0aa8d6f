#include "limits/limits.h"

#include "binding/entry.h"
#include "pfn/page_words.h"

namespace dormouse::binding {
namespace {

constexpr uint64_t kMostBytes = 1ull << 40;

// Memory to measure with.
uint64_t arg_size(const Napi::CallbackInfo& info, size_t i) {
  const uint64_t bytes = arg_u64(info, i);
  need(bytes >= pfn::kPageSize && bytes <= kMostBytes, "no size to measure with");
  return bytes;
}

Napi::Number real(Napi::Env env, double value) { return Napi::Number::New(env, value); }

// (bytes)
Napi::Value memory(const Napi::CallbackInfo& info) {
  limits::MemoryLimits found;
  Fault fault;
  const Napi::Env env = info.Env();
  if (!limits::measure_memory(arg_size(info, 0), &found, &fault)) {
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
  const bool huge = info.Length() > 1 && arg_bool(info, 1);
  return real(info.Env(),
              limits::first_touch_us(arg_size(info, 0), huge ? limits::Region::kHugePages
                                                             : limits::Region::kSmallPages));
}

// (bytes, threads)
Napi::Value shared_first_touch(const Napi::CallbackInfo& info) {
  const uint64_t bytes = arg_size(info, 0);
  const uint32_t threads = arg_u32(info, 1);
  need(bytes >= (2 << 20) && bytes % (2 << 20) == 0, "no multiple of 2 MiB");
  need(threads >= 1 && threads <= 64, "no number of threads");
  return real(info.Env(), limits::shared_first_touch_gbps(bytes, int(threads)));
}

// (nrPfns, window, pfns in order)
Napi::Value canonicalise(const Napi::CallbackInfo& info) {
  const uint64_t nr_pfns = arg_u64(info, 0), window = arg_u64(info, 1);
  need(nr_pfns > 0 && nr_pfns % 512 == 0 && nr_pfns <= kMostBytes / 4096, "no number of pfns");
  need(window > 0 && window <= nr_pfns, "no window of pfns");
  return real(info.Env(), limits::canonicalise_gbps(nr_pfns, window, arg_bool(info, 2)));
}

// (data, threads, acceleration)
Napi::Value lz4(const Napi::CallbackInfo& info) {
  const auto data = arg_bytes(info, 0);
  const uint32_t threads = arg_u32(info, 1);
  need(threads >= 1 && threads <= 64 && data.ByteLength() > 0, "no threads, or no data");
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
  const std::string dir = arg_text(info, 0);
  const uint64_t bytes = arg_u64(info, 1);
  const uint32_t in_flight = arg_u32(info, 2);
  need(bytes % (4 << 20) == 0 && bytes <= kMostBytes, "no multiple of 4 MiB");
  need(in_flight >= 1 && in_flight <= 64, "no number of threads");
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
  add<memory>(exports, "memory");
  add<first_touch>(exports, "firstTouchUs");
  add<shared_first_touch>(exports, "sharedFirstTouchGbps");
  add<canonicalise>(exports, "canonicaliseGbps");
  add<lz4>(exports, "lz4");
  add<direct_write>(exports, "directWriteGbps");
  return exports;
}

}  // namespace dormouse::binding
