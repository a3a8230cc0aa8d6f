// One set of page kernels per instruction set, and the choice between them at run time.
#pragma once
#include "pfn/canonicalise.h"
#include "pfn/page_scan.h"

namespace dormouse::pfn {

struct Kernels {
  const char* name;
  TableResult (*canonicalise)(const FrameMaps&, int level, const uint64_t*, uint64_t*);
  TableResult (*localise)(const FrameMaps&, int level, const uint64_t*, uint64_t*);
  bool (*is_zero_page)(const void*);
  Hash128 (*hash128)(const void*, uint64_t);
};

extern const Kernels kScalarKernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;

// The best this processor runs.
const Kernels& kernels();
// "scalar", "avx2" or "avx512"; null for another name or one this processor does not run.
const Kernels* kernels_named(const char* name);

}  // namespace dormouse::pfn
