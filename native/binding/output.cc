// A file written front to back through one aligned buffer, for formats other than the image's own.
#include <algorithm>
#include <cstring>
#include <memory>

#include "binding/entry.h"
#include "binding/registry.h"
#include "image/aligned_bytes.h"
#include "image/output_file.h"
#include "step/page_batch.h"

namespace dormouse::binding {

constexpr uint64_t kStageBytes = 4ull << 20;
constexpr uint64_t kAlignment = 4096;

class SequentialOutput {
 public:
  SequentialOutput(std::unique_ptr<image::OutputFile> file, image::AlignedBytes stage)
      : file_(std::move(file)), stage_(std::move(stage)) {}

  bool write(const uint8_t* bytes, uint64_t n, Fault* fault) {
    need(!sealed_, "the output is sealed");
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
    need(sealed_, "the output is not sealed");
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

namespace {

// The output is one thread's at a time.
struct Output {
  explicit Output(const Napi::CallbackInfo& info)
      : held_(held<SequentialOutput>(info, 0)), use_(arg_u64(info, 0)) {}
  SequentialOutput* operator->() const { return held_.get(); }

 private:
  std::shared_ptr<SequentialOutput> held_;
  LaneUse use_;
};

Napi::Value create(const Napi::CallbackInfo& info) {
  Fault fault;
  auto file =
      image::OutputFile::create({arg_text(info, 0), arg_bool(info, 1), true, false}, &fault);
  auto stage = image::allocate_aligned(kStageBytes);
  if (file && !stage) fault.raise("NO_MEMORY", "no memory for an output buffer");
  if (fault) return failed(info.Env(), fault);
  auto output = std::make_shared<SequentialOutput>(std::move(file), std::move(stage));
  return give<SequentialOutput>(info.Env(), std::move(output));
}

Napi::Value write(const Napi::CallbackInfo& info) {
  const auto bytes = arg_bytes(info, 1);
  Fault fault;
  if (!Output(info)->write(bytes.Data(), bytes.ByteLength(), &fault))
    return failed(info.Env(), fault);
  return {};
}

// writePages(output, memory, firstPfn, count) -> BigUint64Array of frame | page type << 60
Napi::Value write_pages(const Napi::CallbackInfo& info) {
  auto memory = held<host::DomainMemory>(info, 1);
  const uint64_t first = arg_u64(info, 2);
  const uint32_t count = arg_u32(info, 3);
  need(count <= 1024, "more than 1024 pfns");
  need_range(first, count, memory->nr_pfns(), "pfns");
  const Output output(info);
  auto entries = Napi::BigUint64Array::New(info.Env(), count);
  step::PageBatch& batch = step::thread_batch();
  Fault fault;
  for (uint32_t done = 0; done < count;) {
    const uint32_t n = std::min(step::kBatchPages, count - done);
    uint32_t bodies = 0;
    if (!step::read_batch(*memory, first + done, n, &batch, &bodies, &fault) ||
        !output->write(batch.pages, bodies * host::kPageSize, &fault))
      return failed(info.Env(), fault);
    memcpy(entries.Data() + done, batch.entries, n * sizeof(uint64_t));
    done += n;
  }
  return entries;
}

Napi::Value seal(const Napi::CallbackInfo& info) {
  Fault fault;
  const Output output(info);
  if (!output->seal(&fault)) return failed(info.Env(), fault);
  return num(info.Env(), uint64_t(output->descriptor()));
}

Napi::Value publish(const Napi::CallbackInfo& info) {
  Fault fault;
  if (!Output(info)->publish(&fault)) return failed(info.Env(), fault);
  return {};
}

}  // namespace

Napi::Object init_output(Napi::Env env) {
  Napi::Object exports = Napi::Object::New(env);
  add<create>(exports, "create");
  add<write>(exports, "write");
  add<write_pages>(exports, "writePages");
  add<seal>(exports, "seal");
  add<publish>(exports, "publish");
  add<release<SequentialOutput>>(exports, "close");
  return exports;
}

}  // namespace dormouse::binding
