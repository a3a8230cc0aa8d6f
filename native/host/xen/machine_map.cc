#include "host/xen/machine_map.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>

namespace dormouse::xen {
namespace {

constexpr size_t kChunkBytes = 2ull
                               << 20;  // XENMEM_machphys_mfn_list names the table in 2 MiB pieces
constexpr size_t kChunkPages = kChunkBytes / 4096;
constexpr uint64_t kChunkEntries = kChunkBytes / sizeof(uint64_t);

std::mutex shared_lock;
std::weak_ptr<MachineMap> shared_map;

}  // namespace

std::shared_ptr<MachineMap> MachineMap::get(const std::shared_ptr<Handles>& xen, Fault* fault) {
  std::lock_guard<std::mutex> hold(shared_lock);
  if (auto known = shared_map.lock()) return known;
  std::shared_ptr<MachineMap> made(new MachineMap);
  if (!made->map(xen, fault)) return nullptr;
  shared_map = made;
  return made;
}

bool MachineMap::map(const std::shared_ptr<Handles>& xen, Fault* fault) {
  unsigned long last = 0;
  if (xc_maximum_ram_page(xen->xc(), &last) != 0)
    return raise_errno(fault, "maximum_ram_page", DOMID_XEN);
  const size_t chunks = (last + kChunkEntries - 1) / kChunkEntries;
  std::vector<xen_pfn_t> starts(chunks);
  if (xc_machphys_mfn_list(xen->xc(), chunks, starts.data()) != 0)
    return raise_errno(fault, "machphys_mfn_list", DOMID_XEN);
  xen_ = xen;
  reserved_bytes_ = chunks * kChunkBytes;
  void* at =
      mmap(nullptr, reserved_bytes_, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) return raise_errno(fault, "reserving room for the m2p", DOMID_XEN);
  table_ = static_cast<uint64_t*>(at);
  frames_ = std::min<uint64_t>(last + 1, chunks * kChunkEntries);
  std::vector<xen_pfn_t> frames(kChunkPages);
  std::vector<int> errors(kChunkPages);
  for (size_t i = 0; i < chunks; ++i) {
    if (starts[i] == 0) continue;  // a hole: stays the zero page
    for (size_t j = 0; j < kChunkPages; ++j) frames[j] = starts[i] + j;
    uint8_t* place = reinterpret_cast<uint8_t*>(table_) + i * kChunkBytes;
    if (!xenforeignmemory_map2(xen->memory(), DOMID_XEN, place, PROT_READ, MAP_FIXED, kChunkPages,
                               frames.data(), errors.data()))
      return raise_errno(fault, "mapping the m2p", DOMID_XEN);
    for (int error : errors) {
      if (error == 0) continue;
      errno = error < 0 ? -error : error;
      return raise_errno(fault, "mapping the m2p", DOMID_XEN);
    }
  }
  return true;
}

MachineMap::~MachineMap() {
  if (table_) munmap(table_, reserved_bytes_);
}

}  // namespace dormouse::xen
