// An image is written while memory runs out at the nth allocation, for every n: each time it is
// whole, or all that asks for more of it is told NO_MEMORY. Prints what is otherwise, and ends
// with 1. Argument: the folder to write in.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "guard.h"
#include "image/image_writer.h"

using namespace dormouse;
using namespace dormouse::image;

namespace {

std::atomic<long> left{-1};  // allocations until there is no memory; negative: for ever
std::atomic<bool> refused{false};

void* allocate(size_t bytes) {
  if (left >= 0 && left.fetch_sub(1) <= 0) {
    left = 0;
    refused = true;
    return nullptr;
  }
  return std::malloc(bytes ? bytes : 1);
}

}  // namespace

// Node.js brings the real one, and nobody looks at the digests of what is written here.
bool dormouse::pfn::sha256(const uint8_t*, uint64_t, Sha256* out, Fault*) {
  *out = {};
  return true;
}

void* operator new(size_t bytes) {
  void* at = allocate(bytes);
  if (!at) throw std::bad_alloc();
  return at;
}
void* operator new(size_t bytes, const std::nothrow_t&) noexcept { return allocate(bytes); }
void operator delete(void* at) noexcept { std::free(at); }
void operator delete(void* at, size_t) noexcept { std::free(at); }

// Which hash it is does not matter here, nor that nothing becomes smaller.
namespace dormouse::codec {
struct Lz4State::Hidden {};
Lz4State::Lz4State() = default;
Lz4State::~Lz4State() = default;
uint32_t lz4_compress(Lz4State&, const uint8_t*, uint32_t, uint8_t*, uint32_t, int) { return 0; }
bool lz4_decompress(const uint8_t*, uint32_t, uint8_t*, uint32_t) { return false; }
}  // namespace dormouse::codec
namespace dormouse::pfn {
Hash128 hash128(const void*, uint64_t n) { return {n, ~n}; }
Sha256 sha256(const uint8_t*, uint64_t n) { return Sha256{uint8_t(n)}; }
}  // namespace dormouse::pfn

namespace {

constexpr uint64_t kPfns = 2000;
constexpr uint32_t kRun = 125;

bool write_all(ImageWriter& writer, const std::vector<uint8_t>& bodies, Fault* fault) {
  for (uint32_t i = 0; i < kPfns / kRun; i++) {
    uint64_t descs[kRun];
    for (uint32_t k = 0; k < kRun; k++) descs[k] = page_desc(i * kRun + k, kClassData, 0);
    if (!writer.append(i % 2, descs, kRun, bodies.data(), kRun, fault)) return false;
  }
  return writer.finish(fault);
}

// False where memory that ran out was not told, or was forgotten.
bool one(const std::string& path, const uint8_t* header, const std::vector<uint8_t>& bodies,
         long after) {
  const WriterSetup setup = {{path, false, true, false},
                             header,
                             kPfns,
                             2,
                             true,
                             true,
                             0,
                             nullptr,
                             false,
                             false,
                             false,
                             Compression::lz4};
  Fault fault, later;
  std::shared_ptr<ImageWriter> writer;
  const bool opened = guarded(&fault, [&] {
    writer = ImageWriter::create(setup, &fault);
    return writer != nullptr;
  });
  if (!opened) return false;
  refused = false;
  left = after;
  const bool good = guarded(&fault, [&] { return write_all(*writer, bodies, &fault); });
  left = -1;
  if (good) return !refused || writer->chunks().size() == 8;
  if (std::strcmp(fault.code, "NO_MEMORY") == 0 && !writer->finish(&later) &&
      std::strcmp(later.code, "NO_MEMORY") == 0)
    return true;
  std::printf("after %ld: %s: %s; then %s\n", after, fault.code, fault.text.c_str(),
              later.code ? later.code : "an image");
  return false;
}

}  // namespace

int main(int, char** argv) {
  const std::vector<uint8_t> header(4096), bodies(kRun * 4096, 7);
  const std::string path = std::string(argv[1]) + "/image";
  for (long after = 0; after < 400; after++) {
    refused = false;
    if (!one(path, header.data(), bodies, after)) return 1;
    if (!refused) return after < 10;  // all of it went without running out
  }
  std::printf("memory ran out to the end\n");
  return 1;
}
