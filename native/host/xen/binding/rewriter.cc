#include "host/xen/binding/rewriter.h"

#include "binding/entry.h"
#include "binding/external.h"
#include "binding/registry.h"
#include "guard.h"
#include "host/xen/binding/state_arguments.h"
#include "host/xen/domain_rewriter.h"

namespace dormouse::xen {
namespace {

using binding::add;
using binding::arg_u32;
using binding::held;

const std::shared_ptr<Handles>& (*open_handles)() = nullptr;

Napi::Value done(Napi::Env env, bool good, const Fault& fault) {
  return good ? env.Undefined() : binding::failed(env, fault);
}

// rewriterOpen(domid, memory) -> rewriter
Napi::Value open_rewriter(const Napi::CallbackInfo& info) {
  Fault fault;
  auto rewriter =
      DomainRewriter::open(open_handles(), arg_u32(info, 0), held<XenMemory>(info, 1), &fault);
  if (!rewriter) return done(info.Env(), false, fault);
  return binding::give<DomainRewriter>(info.Env(), std::move(rewriter));
}

// rewriterExport(rewriter) -> External for the main addon's adoptMemory
Napi::Value export_memory(const Napi::CallbackInfo& info) {
  return binding::hand_over<host::DomainMemory>(info.Env(), held<DomainRewriter>(info, 0));
}

// rewriterCheckTies(rewriter, links, rings)
Napi::Value check_ties(const Napi::CallbackInfo& info) {
  Fault fault;
  const bool good = held<DomainRewriter>(info, 0)->check_ties(links_argument(info, 1),
                                                              rings_argument(info, 2), &fault);
  return done(info.Env(), good, fault);
}

// rewriterBegin(rewriter)
Napi::Value begin(const Napi::CallbackInfo& info) {
  Fault fault;
  return done(info.Env(), held<DomainRewriter>(info, 0)->begin(&fault), fault);
}

// rewriterLand(rewriter, DomainState, links, rings, pfns: BigUint64Array, levels: Uint8Array)
// -> why the timers were not raised, or nothing
Napi::Value land(const Napi::CallbackInfo& info) {
  Fault fault;
  std::string timers;
  const bool good = held<DomainRewriter>(info, 0)->land(
      tables_argument(info, 4), state_argument(info, 1), links_argument(info, 2),
      rings_argument(info, 3), &timers, &fault);
  return good ? Napi::Value(Napi::String::New(info.Env(), timers))
              : binding::failed(info.Env(), fault);
}

// Looks through a domain's memory in a thread of the pool.
class Look : public Napi::AsyncWorker {
 public:
  Look(Napi::Env env, std::shared_ptr<DomainRewriter> rewriter)
      : Napi::AsyncWorker(env),
        deferred_(Napi::Promise::Deferred::New(env)),
        rewriter_(std::move(rewriter)) {}
  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    guarded(&fault_, [this] { return rewriter_->look(&fault_); });
  }
  void OnOK() override {
    Napi::HandleScope scope(Env());
    if (!fault_) return deferred_.Resolve(Env().Undefined());
    binding::throw_fault(Env(), fault_);
    deferred_.Reject(Env().GetAndClearPendingException().Value());
  }

 private:
  Napi::Promise::Deferred deferred_;
  std::shared_ptr<DomainRewriter> rewriter_;
  Fault fault_;
};

// rewriterLook(rewriter) -> Promise
Napi::Value look(const Napi::CallbackInfo& info) {
  auto* worker = new Look(info.Env(), held<DomainRewriter>(info, 0));
  Napi::Promise promise = worker->promise();
  worker->Queue();
  return promise;
}

// channels(domid) -> a byte for each port
Napi::Value channels(const Napi::CallbackInfo& info) {
  Fault fault;
  Bytes found;
  if (!read_channels(*open_handles(), arg_u32(info, 0), &found, &fault))
    return binding::failed(info.Env(), fault);
  return Napi::Buffer<uint8_t>::Copy(info.Env(), found.data(), found.size());
}

}  // namespace

void add_rewriter(Napi::Object exports, const std::shared_ptr<Handles>& (*handles)()) {
  open_handles = handles;
  add<open_rewriter>(exports, "rewriterOpen");
  add<export_memory>(exports, "rewriterExport");
  add<check_ties>(exports, "rewriterCheckTies");
  add<look>(exports, "rewriterLook");
  add<begin>(exports, "rewriterBegin");
  add<land>(exports, "rewriterLand");
  add<channels>(exports, "channels");
  add<binding::release<DomainRewriter>>(exports, "rewriterClose");
}

}  // namespace dormouse::xen
