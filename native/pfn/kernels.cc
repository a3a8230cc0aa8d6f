#include "pfn/kernels.h"

#include <cstring>
#include <initializer_list>

namespace dormouse::pfn {
namespace {

bool runs_here(const Kernels& set) {
  __builtin_cpu_init();
  if (&set == &kAvx512Kernels)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2");
  if (&set == &kAvx2Kernels)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2");
  return true;
}

const Kernels& best() {
  if (runs_here(kAvx512Kernels)) return kAvx512Kernels;
  return runs_here(kAvx2Kernels) ? kAvx2Kernels : kScalarKernels;
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = best();
  return chosen;
}

const Kernels* kernels_named(const char* name) {
  for (const Kernels* set : {&kScalarKernels, &kAvx2Kernels, &kAvx512Kernels})
    if (std::strcmp(name, set->name) == 0) return runs_here(*set) ? set : nullptr;
  return nullptr;
}

const char* simd_level() { return kernels().name; }

TableResult canonicalise(const FrameMaps& maps, int level, const uint64_t* src, uint64_t* dst) {
  return kernels().canonicalise(maps, level, src, dst);
}
TableResult localise(const FrameMaps& maps, int level, const uint64_t* src, uint64_t* dst) {
  return kernels().localise(maps, level, src, dst);
}
bool is_zero_page(const void* page) { return kernels().is_zero_page(page); }
Hash128 hash128(const void* data, uint64_t bytes) { return kernels().hash128(data, bytes); }

}  // namespace dormouse::pfn
