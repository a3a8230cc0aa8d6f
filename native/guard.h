// The end of the road for C++ exceptions: none leaves a thread or a call from JavaScript.
#pragma once
#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>

#include "fault.h"

namespace dormouse {

// Runs work(), which returns whether it was good; what it throws becomes a fault. Memory that
// cannot be had, threads that cannot be started and sizes that no memory could hold are NO_MEMORY.
// Their texts are so short that a std::string of them takes no memory.
template <typename Work>
bool guarded(Fault* fault, Work work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return fault->raise("NO_MEMORY", "no memory left");
  } catch (const std::length_error&) {
    return fault->raise("NO_MEMORY", "not that much");
  } catch (const std::system_error&) {
    return fault->raise("NO_MEMORY", "no more threads");
  } catch (const std::exception& error) {
    return fault->raise("INTERNAL", error.what());
  }
}

}  // namespace dormouse
