// A file written front to back through one aligned buffer.
#pragma once
#include <algorithm>
#include <cstring>
#include <memory>

#include "binding/registry.h"
#include "image/aligned_bytes.h"
#include "image/output_file.h"

namespace dormouse::binding {

class SequentialOutput {
 public:
  static constexpr uint64_t kStageBytes = 4ull << 20;
  static constexpr uint64_t kAlignment = 4096;

  SequentialOutput(std::shared_ptr<image::OutputFile> file, image::AlignedBytes stage)
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

  // Bytes written so far.
  uint64_t end() const { return written_ + filled_; }
  // Leaves out so many bytes, for somebody else to write; they are zeroes where he does not. What
  // was written before is whole pages.
  bool skip(uint64_t n, Fault* fault) {
    need(!sealed_, "the output is sealed");
    need(filled_ % kAlignment == 0, "not whole pages");
    if (filled_ != 0 && !flush(fault)) return false;
    file_->skip(n);
    written_ += n;
    return true;
  }
  std::shared_ptr<image::OutputFile> file() const { return file_; }

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

  std::shared_ptr<image::OutputFile> file_;
  image::AlignedBytes stage_;
  uint64_t filled_ = 0;
  uint64_t written_ = 0;
  bool sealed_ = false;
};

}  // namespace dormouse::binding
