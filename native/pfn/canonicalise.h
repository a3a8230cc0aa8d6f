// Turns the MFNs in a page table into PFNs (canonicalise, on the way out) and back (localise, on
// the way in). Pure functions over one 4096-byte page of 512 little-endian 64-bit entries.
//
// Source: xen/include/public/arch-x86 and the rules of xg_sr_save_x86_pv.c as a specification: a
// not-present entry is copied untouched; the frame is bits 12..51; PSE at level 2 or above is
// refused; slots 256..271 of an L4 are Xen's own and are zeroed.
#pragma once
#include <cstdint>

#include "pfn/page_words.h"

namespace dormouse::pfn {

enum class TableFault : uint8_t {
  none = 0,
  superpage,         // PSE set at level 2 or above
  mfn_out_of_range,  // beyond the machine
  foreign_mfn,       // m2p leads outside the domain, or the p2m does not lead back
  pfn_out_of_range,  // localise: at or above nr_pfns
  pfn_no_frame,      // localise: that pfn has no frame
};
const char* table_fault_text(TableFault fault);

struct TableResult {
  TableFault fault = TableFault::none;
  uint16_t index = 0;    // first offending entry
  uint64_t entry = 0;    // its value as found
  uint16_t present = 0;  // present entries seen when there was no fault
};

// dst may equal src. On a fault dst is unspecified. Level is 1..4.
TableResult canonicalise(const FrameMaps& maps, int level, const uint64_t* src, uint64_t* dst);
TableResult canonicalise_scalar(const FrameMaps&, int level, const uint64_t*, uint64_t*);

// For a guest that was stopped anywhere, not at its suspend point: it may map pages which the
// hypervisor lends it (shared info, grant table) and which it would have unmapped. Such a frame,
// whose m2p entry is all ones, keeps its MFN with bit 51 of the entry set; localise refuses it.
TableResult canonicalise_running(const FrameMaps& maps, int level, const uint64_t* src,
                                 uint64_t* dst);

// p2m masked with kMfnMask; kNoMfn means no frame.
TableResult localise(const FrameMaps& maps, int level, const uint64_t* src, uint64_t* dst);
TableResult localise_scalar(const FrameMaps&, int level, const uint64_t*, uint64_t*);

// In the very domain that canonicalise_running() took the table of: with what was lent to it.
TableResult localise_running(const FrameMaps& maps, int level, const uint64_t* src, uint64_t* dst);
using Localise = decltype(&localise);

// The instruction set the run-time dispatch chose: "scalar", "avx2" or "avx512".
const char* simd_level();

}  // namespace dormouse::pfn
