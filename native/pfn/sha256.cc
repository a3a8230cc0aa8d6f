#include "pfn/sha256.h"

#include <cstddef>

// OpenSSL's, which Node.js carries and lets addons call; of a Node.js without it there is no
// node:crypto either.
extern "C" unsigned char* SHA256(const unsigned char* bytes, size_t n, unsigned char* out);

namespace dormouse::pfn {

bool sha256(const uint8_t* bytes, uint64_t n, Sha256* out, Fault* fault) {
  return SHA256(bytes, n, out->data()) || fault->raise("NO_MEMORY", "no memory for a digest");
}

}  // namespace dormouse::pfn
