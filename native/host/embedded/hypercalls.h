// What guest programs ask of the hypervisor. Each call is bounded, and a guest is never stopped in
// the middle of one. False means Xen would have returned an error.
#pragma once
#include <cstdint>

#include "host/embedded/vcpu.h"

namespace dormouse::embedded::hypercall {

bool mmu_update(Vcpu& vcpu, uint64_t table_mfn, uint64_t index, uint64_t pte);
bool pin(Vcpu& vcpu, uint64_t mfn, int level);
bool unpin(Vcpu& vcpu, uint64_t mfn);
// Gives a frame back; refused while an entry maps it or it is a pinned table.
bool decrease_reservation(Vcpu& vcpu, uint64_t mfn);
// A zeroed frame for a pfn that has none.
bool populate(Vcpu& vcpu, uint64_t pfn, uint64_t* mfn);

}  // namespace dormouse::embedded::hypercall
