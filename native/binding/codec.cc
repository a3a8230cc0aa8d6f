#include "binding/entry.h"
#include "codec/delta.h"
#include "codec/lz4.h"

namespace dormouse::binding {
namespace {

Napi::Uint8Array arg_block(const Napi::CallbackInfo& info, size_t i) {
  const auto block = arg_bytes(info, i);
  need(block.ByteLength() <= codec::kLz4MaxBlock, "more than a block");
  return block;
}

// (src, dst, acceleration): bytes written to dst, 0 where the block does not fit it.
Napi::Value lz4_compress(const Napi::CallbackInfo& info) {
  static thread_local codec::Lz4State state;
  const auto src = arg_block(info, 0);
  auto dst = arg_block(info, 1);
  return num(info.Env(),
             codec::lz4_compress(state, src.Data(), uint32_t(src.ByteLength()), dst.Data(),
                                 uint32_t(dst.ByteLength()), int(arg_u32(info, 2))));
}

// (src, dst): whether src is one block of exactly dst's size.
Napi::Value lz4_decompress(const Napi::CallbackInfo& info) {
  const auto src = arg_block(info, 0);
  auto dst = arg_block(info, 1);
  return Napi::Boolean::New(
      info.Env(), codec::lz4_decompress(src.Data(), uint32_t(src.ByteLength()), dst.Data(),
                                        uint32_t(dst.ByteLength())));
}

Napi::Uint8Array arg_delta_pages(const Napi::CallbackInfo& info, size_t i) {
  const auto pages = arg_bytes(info, i);
  need(pages.ByteLength() <= codec::kDeltaMaxBytes, "more than a delta is of");
  return pages;
}

codec::DeltaState& delta_state() {
  static thread_local codec::DeltaState state;
  return state;
}

// (now, base, dst): bytes written to dst, 0 where the delta does not fit it.
Napi::Value delta_compress(const Napi::CallbackInfo& info) {
  const auto now = arg_delta_pages(info, 0);
  const auto base = arg_delta_pages(info, 1);
  auto dst = arg_block(info, 2);
  need(now.ByteLength() == base.ByteLength(), "a base of another size");
  return num(info.Env(), codec::delta_compress(delta_state(), now.Data(), base.Data(),
                                               uint32_t(now.ByteLength()), dst.Data(),
                                               uint32_t(dst.ByteLength())));
}

// (src, pages): whether src is a delta of exactly that size; pages, the base, become its result.
Napi::Value delta_apply(const Napi::CallbackInfo& info) {
  const auto src = arg_block(info, 0);
  auto pages = arg_delta_pages(info, 1);
  return Napi::Boolean::New(
      info.Env(), codec::delta_apply(delta_state(), src.Data(), uint32_t(src.ByteLength()),
                                     pages.Data(), uint32_t(pages.ByteLength())));
}

}  // namespace

Napi::Object init_codec(Napi::Env env) {
  Napi::Object exports = Napi::Object::New(env);
  exports.Set("lz4MaxBlock", num(env, codec::kLz4MaxBlock));
  add<lz4_compress>(exports, "lz4Compress");
  add<lz4_decompress>(exports, "lz4Decompress");
  exports.Set("deltaMaxBytes", num(env, codec::kDeltaMaxBytes));
  add<delta_compress>(exports, "deltaCompress");
  add<delta_apply>(exports, "deltaApply");
  return exports;
}

}  // namespace dormouse::binding
