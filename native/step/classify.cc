#include "step/classify.h"

#include <cstring>

#include "pfn/page_scan.h"

namespace dormouse::step {
namespace {

uint8_t class_without_body(uint8_t type) {
  if (type == host::kBroken) return image::kClassBroken;
  if (type == host::kXalloc) return image::kClassAlloc;
  return image::kClassNoFrame;
}

uint8_t class_of(uint8_t type, const uint8_t* page) {
  if (host::table_level(type) != 0) return image::kClassTable;
  return pfn::is_zero_page(page) ? image::kClassZero : image::kClassData;
}

}  // namespace

void classify(const PageList& list, uint64_t* descs, uint32_t* bodies) {
  uint32_t body = 0, out = 0;
  for (uint32_t i = 0; i < list.n; ++i) {
    const uint8_t type = host::type_of(list.entries[i]);
    if (!host::has_body(type)) {
      descs[i] = image::page_desc(list.pfns[i], class_without_body(type), type);
      continue;
    }
    const uint8_t* page = list.pages + uint64_t(body++) * host::kPageSize;
    const uint8_t page_class = class_of(type, page);
    descs[i] = image::page_desc(list.pfns[i], page_class, type);
    if (!image::class_has_body(page_class)) continue;
    uint8_t* place = list.pages + uint64_t(out++) * host::kPageSize;
    if (place != page) std::memcpy(place, page, host::kPageSize);
  }
  *bodies = out;
}

}  // namespace dormouse::step
