#pragma once
#include <functional>
#include <vector>

#include "binding/arguments.h"
#include "guard.h"

namespace dormouse::binding {

// A blocking call off the event loop, as a promise.
class Task final : public Napi::AsyncWorker {
 public:
  using Work = std::function<bool(Fault*)>;
  using Answer = std::function<Napi::Value(Napi::Env)>;
  // `used`: what the work reads or writes of JavaScript's, which lives until it is done.
  static Napi::Value start(Napi::Env env, Work work, const std::vector<Napi::Object>& used = {},
                           Answer answer = nullptr) {
    auto* task = new Task(env, std::move(work));
    for (const Napi::Object& one : used) task->used_.push_back(Napi::Persistent(one));
    task->answer_ = std::move(answer);
    task->Queue();
    return task->deferred_.Promise();
  }

 private:
  Task(Napi::Env env, Work work) : Napi::AsyncWorker(env), deferred_(env), work_(std::move(work)) {}
  void Execute() override {
    done_ = guarded(&fault_, [this] { return work_(&fault_); });
  }
  void OnOK() override {
    // What it holds is its own until JavaScript hears of it, and free when it does.
    work_ = nullptr;
    if (done_) return deferred_.Resolve(answer_ ? answer_(Env()) : Env().Undefined());
    throw_fault(Env(), fault_);
    deferred_.Reject(Env().GetAndClearPendingException().Value());
  }

  Napi::Promise::Deferred deferred_;
  Work work_;
  Answer answer_;
  std::vector<Napi::ObjectReference> used_;
  Fault fault_;
  bool done_ = false;
};

}  // namespace dormouse::binding
