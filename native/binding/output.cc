// A file written front to back through one aligned buffer, for formats other than the image's own.
#include <algorithm>
#include <cstring>
#include <memory>

#include "binding/entry.h"
#include "binding/sequential_output.h"
#include "binding/step.h"
#include "step/page_batch.h"
#include "step/page_file.h"

namespace dormouse::binding {

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
  auto stage = image::allocate_aligned(SequentialOutput::kStageBytes);
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

// pageFile(output, reader, packed, leafPfns: BigUint64Array, lime) -> {file, bytes}; the bytes that
// the pages will be in are left out
Napi::Value page_file(const Napi::CallbackInfo& info) {
  auto reader = arg_image(info, 1);
  const Output output(info);
  const auto words = arg_words(info, 3);
  step::PageFilePlan plan = {0, arg_bool(info, 2), arg_bool(info, 4), {}};
  for (size_t i = 0; i < words.ElementLength(); ++i) {
    need_range(words[i], 1, reader->nr_pfns(), "pfns");
    plan.leaves.push_back(words[i]);
  }
  plan.base = output->end();
  const auto file = std::make_shared<step::PageFile>(std::move(reader), output->file(), plan);
  Fault fault;
  if (!output->skip(file->bytes(), &fault) || !file->put_headers(&fault))
    return failed(info.Env(), fault);
  Napi::Object made = Napi::Object::New(info.Env());
  made.Set("file", give<step::PageFile>(info.Env(), file));
  made.Set("bytes", num(info.Env(), file->bytes()));
  return made;
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
  add<page_file>(exports, "pageFile");
  add<seal>(exports, "seal");
  add<publish>(exports, "publish");
  add<release<SequentialOutput>>(exports, "close");
  return exports;
}

}  // namespace dormouse::binding
