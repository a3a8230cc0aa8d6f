#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "codec/lz4.h"
#include "limits/limits.h"

namespace dormouse::limits {
namespace {

constexpr uint32_t kBlock = 64 * 1024;
constexpr uint64_t kWrite = 4ull << 20;

// Runs work(thread) on that many threads at once, the caller being one of them.
template <typename Work>
void on_threads(int threads, Work work) {
  std::vector<std::thread> others;
  for (int i = 1; i < threads; i++) others.emplace_back(work, i);
  work(0);
  for (std::thread& other : others) other.join();
}

struct Block {
  const uint8_t* plain;
  uint32_t bytes;
  uint8_t* stored;
  uint32_t stored_bytes;
};

std::vector<Block> blocks_of(const uint8_t* data, uint64_t bytes, uint8_t* arena) {
  std::vector<Block> blocks;
  for (uint64_t at = 0; at < bytes; at += kBlock) {
    const uint32_t size = bytes - at < kBlock ? uint32_t(bytes - at) : kBlock;
    blocks.push_back({data + at, size, arena + at, 0});
  }
  return blocks;
}

void compress(codec::Lz4State* state, Block* b, int acceleration) {
  b->stored_bytes =
      codec::lz4_compress(*state, b->plain, b->bytes, b->stored, b->bytes - 1, acceleration);
  if (b->stored_bytes) return;
  std::memcpy(b->stored, b->plain, b->bytes);
  b->stored_bytes = b->bytes;
}

bool decompress(const Block& b, uint8_t* out) {
  if (b.stored_bytes < b.bytes)
    return codec::lz4_decompress(b.stored, b.stored_bytes, out, b.bytes);
  std::memcpy(out, b.stored, b.bytes);
  return true;
}

// One pass of all threads over all blocks; each takes the next block that nobody has.
template <typename Work>
double pass(int threads, size_t n, Work work) {
  return best_seconds(3, [&] {
    std::atomic<size_t> next{0};
    on_threads(threads, [&](int thread) {
      for (size_t i; (i = next.fetch_add(1)) < n;) work(thread, i);
    });
  });
}

bool write_failed(Fault* fault, const char* what, int error) {
  fault->sys_errno = error;
  return fault->raise(error == ENOSPC ? "NO_SPACE" : "IMAGE_WRITE_FAILED",
                      std::string(what) + ": " + std::strerror(error));
}

}  // namespace

CodecLimits measure_codec(const uint8_t* data, uint64_t bytes, int threads, int acceleration) {
  Region arena(bytes), out(bytes);
  if (!arena.data() || !out.data()) return {};
  std::memset(arena.data(), 1, bytes);
  std::memset(out.data(), 1, bytes);
  std::vector<Block> blocks = blocks_of(data, bytes, arena.data());
  std::vector<codec::Lz4State> states(static_cast<size_t>(threads));

  const double in = pass(threads, blocks.size(), [&](int thread, size_t i) {
    compress(&states[size_t(thread)], &blocks[i], acceleration);
  });
  std::atomic<bool> good{true};
  const double back = pass(threads, blocks.size(), [&](int, size_t i) {
    if (!decompress(blocks[i], out.data() + i * kBlock)) good = false;
  });
  if (!good || std::memcmp(out.data(), data, bytes) != 0) return {};
  uint64_t stored = 0;
  for (const Block& b : blocks) stored += b.stored_bytes;
  return {double(bytes) / in / 1e9, double(bytes) / back / 1e9, double(stored) / double(bytes)};
}

bool direct_write_gbps(const std::string& dir, uint64_t bytes, int in_flight, double* gbps,
                       Fault* fault) {
  Region data(bytes);
  if (!data.data()) return fault->raise("NO_MEMORY", "no memory for what is to be written");
  data.fill_random(4);
  const int fd = open(dir.c_str(), O_TMPFILE | O_WRONLY | O_DIRECT | O_CLOEXEC, 0600);
  if (fd < 0 && (errno == EINVAL || errno == EOPNOTSUPP))
    return fault->raise("OUTPUT_INVALID", dir + " does not take O_DIRECT");
  if (fd < 0) return write_failed(fault, dir.c_str(), errno);

  std::atomic<uint64_t> next{0};
  std::atomic<int> error{0};
  const double start = now();
  on_threads(in_flight, [&](int) {
    for (uint64_t at; (at = next.fetch_add(kWrite)) < bytes && !error;) {
      const ssize_t wrote = pwrite(fd, data.data() + at, kWrite, off_t(at));
      if (wrote != ssize_t(kWrite)) error = wrote < 0 ? errno : EIO;
    }
  });
  if (!error && fdatasync(fd) != 0) error = errno;
  *gbps = double(bytes) / (now() - start) / 1e9;
  close(fd);
  return error ? write_failed(fault, "write", error) : true;
}

}  // namespace dormouse::limits
