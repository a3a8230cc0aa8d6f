// Saves and migrations by other toolstacks' helpers, which know nothing of our leases.
#pragma once
#include <cstdint>
#include <string>

namespace dormouse::xen {

// Of the command line of a process, as /proc has it: the domain it saves, -1 for any other.
// src/host/xen/other_saver.ts has the same rules.
int saved_domain(const std::string& command_line);

// The process of this user's that saves or migrates the domain; 0 where none does.
int other_saver(uint32_t domid);

}  // namespace dormouse::xen
