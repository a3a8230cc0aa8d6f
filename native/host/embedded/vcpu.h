// A virtual processor: registers, a translation buffer filled from the guest's own page tables, and
// the thread that executes the guest program.
#pragma once
#include <atomic>
#include <cstdint>
#include <string>
#include <thread>

#include "host/embedded/tlb.h"
#include "host/embedded/xen_layout.h"

namespace dormouse::embedded {

class Domain;

enum class Outcome : uint8_t {
  go_on,
  block,  // for ever: the program is done
  wait,   // nothing to do yet: asks again after a tick
  end,    // the domain was shut down from inside
};

class Vcpu {
 public:
  // A step executes only in state kRun, entered before stop_requests was last seen to be zero.
  enum State : uint32_t { kRun, kParked, kAsleep, kBlocked };

  Vcpu(Domain& dom, uint32_t number);

  // Guest loads and stores; address 8-byte aligned. False after a fault: the step must end at once.
  bool load(uint64_t address, uint64_t* value);
  bool store(uint64_t address, uint64_t value);
  // A pointer to the page at this page-aligned address, for loads or for stores of this step only.
  const uint64_t* load_page(uint64_t address);
  uint64_t* store_page(uint64_t address);

  // The frame and entry that map an address in the guest's tables; false if none does.
  bool walk(uint64_t address, uint64_t* mfn, bool* writable) const;

  // Crashes the guest; always false.
  bool fault(const char* what, uint64_t address);
  // Forgets translations if some mapping of the domain changed since they were made.
  void sync_tlb();
  uint64_t cr3_mfn() const { return mfn_of_pte(context.ctrlreg[3]); }

  void start();
  void join();
  uint64_t cpu_time_ns() const;
  UserRegs& regs() { return context.regs; }

  Domain& domain;
  const uint32_t id;
  VcpuContext context{};
  Tlb tlb;
  std::atomic<uint32_t> state{kParked};
  std::atomic<uint32_t> wake{0};  // futex of a vCPU that sleeps or blocks
  std::atomic<uint64_t> seen_tlb{0};
  std::atomic<uint64_t> steps{0};
  bool initialised = false;
  uint64_t timer_ns = 0;  // a program's own, by the host's clock: no part of what the guest knows

 private:
  const TlbEntry* translate(uint64_t address);
  TlbEntry* translate_for_store(uint64_t address);
  void run();
  Outcome step();
  bool park();
  void sleep(State as, uint64_t ns);
  uint64_t pace(uint64_t now_ns);

  std::thread thread_;
  uint64_t due_ns_ = 0;  // when the next step is due, of a program with a rate
};

// One step of the program, defined in programs/.
Outcome run_program(Vcpu& vcpu);

}  // namespace dormouse::embedded
