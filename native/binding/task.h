#pragma once
#include <functional>

#include "binding/arguments.h"
#include "guard.h"

namespace dormouse::binding {

// A blocking call off the event loop, as a promise.
class Task final : public Napi::AsyncWorker {
 public:
  using Work = std::function<bool(Fault*)>;
  static Napi::Value start(Napi::Env env, Work work) {
    auto* task = new Task(env, std::move(work));
    task->Queue();
    return task->deferred_.Promise();
  }

 private:
  Task(Napi::Env env, Work work) : Napi::AsyncWorker(env), deferred_(env), work_(std::move(work)) {}
  void Execute() override {
    done_ = guarded(&fault_, [this] { return work_(&fault_); });
    work_ = nullptr;  // what it holds is free before JavaScript hears of it
  }
  void OnOK() override {
    if (done_) return deferred_.Resolve(Env().Undefined());
    throw_fault(Env(), fault_);
    deferred_.Reject(Env().GetAndClearPendingException().Value());
  }

  Napi::Promise::Deferred deferred_;
  Work work_;
  Fault fault_;
  bool done_ = false;
};

}  // namespace dormouse::binding
