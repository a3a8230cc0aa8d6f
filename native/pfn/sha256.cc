#include "pfn/sha256.h"

#include <cstddef>

// OpenSSL's, which Node.js carries and lets addons call; of a Node.js without it there is no
// node:crypto either.
extern "C" unsigned char* SHA256(const unsigned char* bytes, size_t n, unsigned char* out);

namespace dormouse::pfn {

Sha256 sha256(const uint8_t* bytes, uint64_t n) {
  Sha256 out;
  SHA256(bytes, n, out.data());
  return out;
}

}  // namespace dormouse::pfn
