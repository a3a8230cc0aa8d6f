// Pages of a domain that others write to without Xen's dirty log telling of it: Xen marks a granted
// page when it is unmapped, not when it is written, and backends keep theirs mapped for good.
#pragma once
#include <vector>

#include "host/xen/handles.h"
#include "host/xen/machine_map.h"

namespace dormouse::xen {

class SharedPages {
 public:
  SharedPages(std::shared_ptr<Handles> xen, uint32_t domid) : xen_(std::move(xen)), domid_(domid) {}
  // Maps what tells of them while the domain still runs; mark() maps what is missing then.
  bool prepare(Fault* fault);
  // Sets the bits, one a pfn, of what is mapped writable by other domains (grants, the rings of
  // xenstored and xenconsoled) or written by Xen itself (shared info, grant table).
  bool mark(uint8_t* bitmap, uint64_t nr_pfns, Fault* fault);

 private:
  struct Marker;
  bool know_domain(xc_domaininfo_t* info, Fault* fault);
  bool has_all() const;
  bool map_grants(Fault* fault);
  bool mark_grants(const Marker& mark, Fault* fault);

  std::shared_ptr<Handles> xen_;
  uint32_t domid_;
  std::shared_ptr<MachineMap> machine_;  // of a PV domain, whose grants name machine frames
  // The grant table: its frames, as setup_table gives them, and which of them are mapped.
  std::vector<xen_pfn_t> frames_;
  std::vector<int> errors_;
  ForeignPages table_;
};

}  // namespace dormouse::xen
