// A file written front to back through one aligned buffer, for formats other than the image's own.
#include <algorithm>
#include <cstring>
#include <memory>

#include "binding/napi_util.h"
#include "binding/registry.h"
#include "image/lane.h"
#include "image/output_file.h"
#include "step/page_batch.h"

namespace dormouse::binding {

namespace {

constexpr uint64_t kStageBytes = 4ull << 20;
constexpr uint64_t kAlignment = 4096;

class SequentialOutput {
 public:
  SequentialOutput(std::unique_ptr<image::OutputFile> file, image::AlignedBytes stage)
      : file_(std::move(file)), stage_(std::move(stage)) {}

  bool write(const uint8_t* bytes, uint64_t n, Fault* fault) {
    DM_ASSERT(!sealed_);
    while (n > 0) {
      const uint64_t taken = std::min(n, kStageBytes - filled_);
      memcpy(stage_.get() + filled_, bytes, taken);
      filled_ += taken;
      bytes += taken;
      n -= taken;
      if (filled_ == kStageBytes && !flush(fault)) return false;
    }
    return true;
  }

  bool seal(Fault* fault) {
    sealed_ = true;
    return filled_ == 0 || flush(fault);
  }
  bool publish(Fault* fault) {
    DM_ASSERT(sealed_);
    return file_->publish(written_, fault);
  }
  int descriptor() const { return file_->descriptor(); }

 private:
  bool flush(Fault* fault) {
    const uint64_t whole = (filled_ + kAlignment - 1) / kAlignment * kAlignment;
    memset(stage_.get() + filled_, 0, whole - filled_);
    if (!file_->write_at(file_->reserve(whole), stage_.get(), whole, fault)) return false;
    written_ += filled_;
    filled_ = 0;
    return true;
  }

  std::unique_ptr<image::OutputFile> file_;
  image::AlignedBytes stage_;
  uint64_t filled_ = 0;
  uint64_t written_ = 0;
  bool sealed_ = false;
};

std::shared_ptr<SequentialOutput> output_of(const Napi::CallbackInfo& info) {
  auto output = Registry<SequentialOutput>::get().find(arg_u32(info, 0));
  DM_ASSERT(output);
  return output;
}

Napi::Value create(const Napi::CallbackInfo& info) {
  DM_ASSERT(info.Length() == 2 && info[0].IsString() && info[1].IsBoolean());
  Fault fault;
  auto file = image::OutputFile::create(info[0].As<Napi::String>().Utf8Value(),
                                        info[1].As<Napi::Boolean>().Value(), true, &fault);
  auto stage = image::allocate_aligned(kStageBytes);
  if (file && !stage) fault.raise("NO_MEMORY", "no memory for an output buffer");
  if (fault) {
    throw_fault(info.Env(), fault);
    return info.Env().Undefined();
  }
  auto output = std::make_shared<SequentialOutput>(std::move(file), std::move(stage));
  return num(info.Env(), Registry<SequentialOutput>::get().add(std::move(output)));
}

void write(const Napi::CallbackInfo& info) {
  DM_ASSERT(info.Length() == 2 && info[1].IsBuffer());
  auto bytes = info[1].As<Napi::Buffer<uint8_t>>();
  Fault fault;
  if (!output_of(info)->write(bytes.Data(), bytes.Length(), &fault)) throw_fault(info.Env(), fault);
}

// writePages(output, memory, firstPfn, count) -> BigUint64Array of frame | page type << 60
Napi::Value write_pages(const Napi::CallbackInfo& info) {
  auto memory = Registry<host::DomainMemory>::get().find(arg_u32(info, 1));
  const uint64_t first = arg_u64(info, 2);
  const uint32_t count = arg_u32(info, 3);
  DM_ASSERT(info.Length() == 4 && memory && count <= 1024);
  auto output = output_of(info);
  auto entries = Napi::BigUint64Array::New(info.Env(), count);
  step::PageBatch& batch = step::thread_batch();
  Fault fault;
  for (uint32_t done = 0; done < count;) {
    const uint32_t n = std::min(step::kBatchPages, count - done);
    uint32_t bodies = 0;
    if (!step::read_batch(*memory, first + done, n, &batch, &bodies, &fault) ||
        !output->write(batch.pages, bodies * host::kPageSize, &fault)) {
      throw_fault(info.Env(), fault);
      return info.Env().Undefined();
    }
    memcpy(entries.Data() + done, batch.entries, n * sizeof(uint64_t));
    done += n;
  }
  return entries;
}

Napi::Value seal(const Napi::CallbackInfo& info) {
  Fault fault;
  auto output = output_of(info);
  if (!output->seal(&fault)) throw_fault(info.Env(), fault);
  return num(info.Env(), uint64_t(output->descriptor()));
}

void publish(const Napi::CallbackInfo& info) {
  Fault fault;
  if (!output_of(info)->publish(&fault)) throw_fault(info.Env(), fault);
}

void close(const Napi::CallbackInfo& info) {
  Registry<SequentialOutput>::get().release(arg_u32(info, 0));
}

}  // namespace

Napi::Object init_output(Napi::Env env) {
  Napi::Object exports = Napi::Object::New(env);
  exports.Set("create", Napi::Function::New(env, create));
  exports.Set("write", Napi::Function::New(env, write));
  exports.Set("writePages", Napi::Function::New(env, write_pages));
  exports.Set("seal", Napi::Function::New(env, seal));
  exports.Set("publish", Napi::Function::New(env, publish));
  exports.Set("close", Napi::Function::New(env, close));
  return exports;
}

}  // namespace dormouse::binding
