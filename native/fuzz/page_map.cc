// The page map's decoder on any bytes, and on runs wrapped in blocks whose sizes add up.
#include "image/page_map.h"

#include "fuzz/input.h"

namespace {

using namespace dormouse;
using namespace dormouse::image;
using fuzz::Fenced;
using fuzz::Input;
using fuzz::require;

constexpr uint32_t kMost = 128 * 1024;

const std::vector<ChunkEntry>& chunks() {
  static const std::vector<ChunkEntry> table = {
      {4096, 8192, 1, 1, 0, 0}, {12288, 8192, 300, 0, 0, 0}, {20480, 8192, 1024, 2, 0, 0}};
  return table;
}

MapRun any_run(Input* in) {
  MapRun run = {};
  const uint8_t kind = in->number<uint8_t>();
  run.chunk = kind % 4;
  run.slot = in->number<uint8_t>();
  run.count = 1 + in->number<uint8_t>();
  run.page_class = 1 + kind % 7;
  constexpr uint8_t types[] = {0, 0, 1, 0xF, 0xD, 0xE, 0};
  run.type = kind < 240 ? types[kind % 7] : kind & 0xF;
  return run;
}

// Runs in stored blocks. Returns the bytes used.
uint32_t wrapped(Input* in, uint8_t* out, uint64_t* n_runs, uint64_t* nr_pfns) {
  std::vector<MapRun> runs;
  *nr_pfns = 0;
  while (in->left() >= 3 && runs.size() < 2 * kMapBlockRuns) {
    runs.push_back(any_run(in));
    *nr_pfns += runs.back().count;
  }
  uint32_t at = 0;
  for (size_t first = 0; first < runs.size(); first += kMapBlockRuns) {
    const size_t count = runs.size() - first < kMapBlockRuns ? runs.size() - first : kMapBlockRuns;
    const auto raw = uint32_t(count * sizeof(MapRun));
    const MapBlockHeader header = {raw | kStoredFlag, raw};
    std::memcpy(out + at, &header, sizeof header);
    std::memcpy(out + at + sizeof header, &runs[first], raw);
    at += uint32_t(sizeof header) + raw;
  }
  *n_runs = runs.size();
  return at;
}

void check_result(const ReaderMap& map, uint64_t n_runs, uint64_t nr_pfns) {
  require(map.runs().size() == n_runs && map.nr_pfns() == nr_pfns, "another size than asked for");
  uint64_t next = 0;
  for (size_t i = 0; i < map.runs().size(); i++) {
    const PlacedRun& run = map.runs()[i];
    require(run.first == next && map.end_of(i) > next, "runs do not follow each other");
    next = map.end_of(i);
    require(run.chunk < chunks().size(), "a chunk that is not there");
    require(run.slot + (next - run.first) <= chunks()[run.chunk].pages, "a slot that is not there");
    require(map.find(run.first) == i && map.find(next - 1) == i, "a pfn is not found in its run");
  }
  require(next == nr_pfns, "not every page is covered");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  static const Fenced memory(kMost);
  static uint8_t made[kMost];
  Input in(data, bytes);
  const uint8_t mode = in.number<uint8_t>();
  uint64_t n_runs = in.number<uint16_t>(), nr_pfns = in.number<uint32_t>();
  uint32_t size;
  if (mode & 1) {
    size = wrapped(&in, made, &n_runs, &nr_pfns);
    if (mode & 4 && size) made[in.number<uint32_t>() % size] ^= mode;
  } else {
    size = uint32_t(in.left() < kMost ? in.left() : kMost);
    in.take(made, size);
  }
  uint8_t* const map_bytes = memory.last(size);
  if (size) std::memcpy(map_bytes, made, size);
  ReaderMap map;
  Fault fault;
  if (map.decode(map_bytes, size, n_runs, nr_pfns, mode & 2, chunks(), &fault))
    check_result(map, n_runs, nr_pfns);
  else
    require(bool(fault), "refused without saying why");
  return 0;
}
