#include "binding/entry.h"
#include "pfn/kernels.h"

namespace dormouse::binding {
namespace {

constexpr size_t kPage = pfn::kPageSize;

// The kernels an argument names; an empty name means the best.
const pfn::Kernels& arg_kernels(const Napi::CallbackInfo& info, size_t i) {
  const std::string name = arg_text(info, i);
  const pfn::Kernels* set = name.empty() ? &pfn::kernels() : pfn::kernels_named(name.c_str());
  need(set != nullptr, "no instruction set that this processor has");
  return *set;
}

Napi::Value simd_level(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), pfn::simd_level());
}

// Whether this processor runs the named set.
Napi::Value simd_runs(const Napi::CallbackInfo& info) {
  const std::string name = arg_text(info, 0);
  return Napi::Boolean::New(info.Env(), pfn::kernels_named(name.c_str()) != nullptr);
}

Napi::Object outcome(Napi::Env env, const pfn::TableResult& result, size_t page, uint64_t present) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("fault", num(env, uint64_t(result.fault)));
  out.Set("text", pfn::table_fault_text(result.fault));
  out.Set("page", num(env, page));
  out.Set("index", num(env, result.index));
  out.Set("entry", Napi::BigInt::New(env, result.entry));
  out.Set("present", num(env, present));
  return out;
}

// (simd, toPfns, p2m, m2p, level, src, dst): tables of one level; stops at the first fault.
Napi::Value translate(const Napi::CallbackInfo& info) {
  const pfn::Kernels& set = arg_kernels(info, 0);
  const bool to_pfns = arg_bool(info, 1);
  const auto p2m = arg_words(info, 2), m2p = arg_words(info, 3);
  const uint32_t level = arg_u32(info, 4);
  const auto src = arg_bytes(info, 5);
  auto dst = arg_bytes(info, 6);
  const size_t bytes = src.ByteLength();
  need(level >= 1 && level <= 4, "no level of a page table");
  need(bytes % kPage == 0 && dst.ByteLength() == bytes, "not whole pages, as many here as there");
  need(uintptr_t(src.Data()) % 8 == 0 && uintptr_t(dst.Data()) % 8 == 0, "pages out of line");

  const pfn::FrameMaps maps = {p2m.Data(), p2m.ElementLength(), m2p.Data(), m2p.ElementLength()};
  const auto kernel = to_pfns ? set.canonicalise : set.localise;
  uint64_t present = 0;
  for (size_t at = 0; at < bytes; at += kPage) {
    const auto result = kernel(maps, int(level), reinterpret_cast<const uint64_t*>(src.Data() + at),
                               reinterpret_cast<uint64_t*>(dst.Data() + at));
    if (result.fault != pfn::TableFault::none)
      return outcome(info.Env(), result, at / kPage, present);
    present += result.present;
  }
  return outcome(info.Env(), {}, 0, present);
}

Napi::Value is_zero_page(const Napi::CallbackInfo& info) {
  const pfn::Kernels& set = arg_kernels(info, 0);
  const auto page = arg_bytes(info, 1);
  need(page.ByteLength() == kPage, "not one page");
  return Napi::Boolean::New(info.Env(), set.is_zero_page(page.Data()));
}

// XXH3-128 in the canonical notation: high half first, 32 hexadecimal digits.
Napi::Value hash128(const Napi::CallbackInfo& info) {
  const pfn::Kernels& set = arg_kernels(info, 0);
  const auto data = arg_bytes(info, 1);
  const pfn::Hash128 hash = set.hash128(data.Data(), data.ByteLength());
  char text[33];
  std::snprintf(text, sizeof text, "%016llx%016llx", static_cast<unsigned long long>(hash.high),
                static_cast<unsigned long long>(hash.low));
  return Napi::String::New(info.Env(), text);
}

}  // namespace

Napi::Object init_pfn(Napi::Env env) {
  Napi::Object exports = Napi::Object::New(env);
  add<simd_level>(exports, "simdLevel");
  add<simd_runs>(exports, "simdRuns");
  add<translate>(exports, "translate");
  add<is_zero_page>(exports, "isZeroPage");
  add<hash128>(exports, "hash128");
  return exports;
}

}  // namespace dormouse::binding
