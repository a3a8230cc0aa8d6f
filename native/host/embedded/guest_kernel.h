// The kernel part of our guests, run with every vCPU held: how they come to their suspend point and
// how they go on from it. All of it works through the guest's own page tables, as vCPU 0.
#pragma once
#include <cstdint>

#include "host/embedded/domain.h"

namespace dormouse::embedded {

class GuestKernel {
 public:
  explicit GuestKernel(Domain& domain) : dom_(domain), cpu_(*domain.vcpus[0]) {}

  // Turns the MFNs of start info into PFNs and puts vCPU 0 into the suspend hypercall. False (and
  // nothing done) for a guest that is not ours, is suspended already or has crashed.
  bool enter_suspend_point();
  // The same for a guest that is not ours and never ran here: it still stands in the suspend
  // hypercall it was taken in, only the ring frames of its start info are this machine's. False if
  // there is no start info where vCPU 0 says.
  static bool swap_held_rings(Domain& domain, bool to_pfns);
  // The suspend hypercall returned 1: the same domain goes on.
  void leave_suspend_point();
  // The same in a domain that was rewritten in place: what the toolstack made of start info stays.
  void go_on_in_place();
  // The hypercall returned 0: a new domain. Checks what the toolstack made and rebuilds the rest;
  // a guest that finds something wrong crashes.
  void start_in_new_domain();

 private:
  bool rings_to_pfns();
  bool rings_to_mfns();
  bool ring_field(uint64_t offset, bool to_pfn);
  bool p2m(uint64_t pfn, uint64_t* mfn);
  bool check_start_info();
  bool check_p2m();
  bool drop_tree();
  bool build_tree();
  bool uses_tree(bool* uses);
  bool wrong(const char* what);

  Domain& dom_;
  Vcpu& cpu_;
  bool was_in_hypercall_ = false;
};

}  // namespace dormouse::embedded
