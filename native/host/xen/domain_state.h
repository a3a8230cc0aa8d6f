// A domain's state beside its memory, in the bodies of the libxc migration stream (specification
// sections "X86_PV_VCPU_*", "X86_TSC_INFO", "HVM_CONTEXT", "HVM_PARAMS", "X86_*_POLICY").
#pragma once
#include <cstdint>
#include <vector>

#include "host/xen/handles.h"

namespace dormouse::xen {

using Bytes = std::vector<uint8_t>;

struct VcpuBlobs {
  uint32_t id;
  Bytes basic, extended, xsave, msrs;
};

struct StateBlobs {
  std::vector<VcpuBlobs> vcpus;  // online ones of a PV domain
  Bytes shared_info, tsc_info, cpuid_policy, msr_policy, hvm_context, hvm_params;
};

// Of a domain that stands still; MFNs as Xen has them.
bool read_state(const std::shared_ptr<Handles>& xen, uint32_t domid, StateBlobs* state,
                Fault* fault);
// The same in two parts: what stays as it is from a domain's start on, and what does not.
bool read_policies(const Handles& xen, uint32_t domid, StateBlobs* state, Fault* fault);
bool read_registers(const std::shared_ptr<Handles>& xen, uint32_t domid, StateBlobs* state,
                    Fault* fault);

// All that a guest can be shown here: of PV, or of HVM and PVH.
bool read_guest_policy(const Handles& xen, bool hvm, Bytes* cpuid, Bytes* msrs, Fault* fault);

}  // namespace dormouse::xen
