// A machine with its domains, as the toolstack sees it.
#pragma once
#include <map>
#include <memory>

#include "host/embedded/domain.h"

namespace dormouse::embedded {

struct Hypervisor {
  Machine machine;
  std::map<uint16_t, std::unique_ptr<Domain>> domains;  // destroyed before the machine

  Domain* find(uint32_t domid) {
    auto at = domid <= UINT16_MAX ? domains.find(uint16_t(domid)) : domains.end();
    return at == domains.end() ? nullptr : at->second.get();
  }
};

}  // namespace dormouse::embedded
