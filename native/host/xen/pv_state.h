// What a PV domain is given beside its pages: registers, shared info, pinned page tables.
#pragma once
#include "host/xen/domain_state.h"
#include "host/xen/handles.h"

namespace dormouse::xen {

struct TableToPin {
  uint64_t pfn;
  uint32_t level;  // 1..4
};

bool set_pv_vcpu(const Handles& xen, uint32_t domid, const VcpuBlobs& vcpu, Fault* fault);

struct SharedInfoParts {
  bool arch;  // where the guest's p2m is, too
};
// All of the page but the wall clock, which stays this host's.
bool set_shared_info(const std::shared_ptr<Handles>& xen, uint32_t domid, const Bytes& from,
                     SharedInfoParts parts, Fault* fault);

// Nobody may have these pages mapped to write to them. PAGE_TABLE_INVALID names the pfn.
bool pin_table(const Handles& xen, uint32_t domid, const TableToPin& table, uint64_t frame,
               Fault* fault);

}  // namespace dormouse::xen
