// The page map's decoder on any bytes, and on runs wrapped in blocks whose sizes add up; and two
// maps laid over each other.
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
      {4096, 8192, 1, 0, 0, 0}, {12288, 8192, 100, 0, 0, 0}, {20480, 8192, 256, 0, 0, 0}};
  return table;
}

const std::vector<MapSource>& sources() {
  static const std::vector<MapSource> two = {{0, &chunks()}, {3, &chunks()}};
  return two;
}

MapRun any_run(Input* in) {
  MapRun run = {};
  const uint8_t kind = in->number<uint8_t>();
  run.page_class = kind % 7;
  constexpr uint8_t types[] = {0, 0, 0, 1, 0xF, 0xD, 0xE};
  run.type = kind < 240 ? types[kind % 7] : kind & 0xF;
  run.source = kind / 7 % 3;
  run.count = 1 + in->number<uint8_t>();
  if (kind < 250 && !class_has_body(run.page_class)) {
    if (run.page_class == kClassAbsent) run.source = 0;
    return run;
  }
  run.chunk = kind % 4;
  run.slot = in->number<uint8_t>() % 200;
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

void check_runs(const ReaderMap& map) {
  uint64_t next = 0;
  for (size_t i = 0; i < map.runs().size(); i++) {
    const PlacedRun& run = map.runs()[i];
    require(run.first == next && map.end_of(i) > next, "runs do not follow each other");
    next = map.end_of(i);
    require(map.find(run.first) == i && map.find(next - 1) == i, "a pfn is not found in its run");
    require((run.chunk != kNoChunk) == class_has_body(run.page_class), "a body without a chunk");
    if (run.chunk == kNoChunk) continue;
    require(run.chunk < 2 * chunks().size(), "a chunk that is not there");
    require(run.slot + map.count_of(i) <= chunks()[run.chunk % 3].pages, "no such slot");
  }
  require(next == map.nr_pfns(), "not every page is covered");
}

const PlacedRun& at(const ReaderMap& map, uint64_t pfn) { return map.runs()[map.find(pfn)]; }

// The newer one where it has a page, else the older one.
void check_over(const ReaderMap& newer, const ReaderMap& older) {
  ReaderMap both = newer;
  both.lay_over(older);
  check_runs(both);
  for (uint64_t pfn = 0; pfn < newer.nr_pfns(); pfn += 1 + pfn / 64) {
    const bool own = at(newer, pfn).page_class != kClassAbsent;
    if (!own && pfn >= older.nr_pfns()) {
      require(at(both, pfn).page_class == kClassAbsent, "a page from nowhere");
      continue;
    }
    const PlacedRun &from = at(own ? newer : older, pfn), &got = at(both, pfn);
    require(got.page_class == from.page_class && got.type == from.type && got.chunk == from.chunk,
            "another page than either has");
    if (got.chunk == kNoChunk) continue;
    require(got.slot + (pfn - got.first) == from.slot + (pfn - from.first), "another slot");
  }
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
  const MapClaims claims = {n_runs, nr_pfns, bool(mode & 2), bool(mode & 8), &sources()};
  if (!map.decode(map_bytes, size, claims, &fault)) {
    require(bool(fault), "refused without saying why");
    return 0;
  }
  require(map.runs().size() == n_runs && map.nr_pfns() == nr_pfns, "another size than asked for");
  check_runs(map);
  // The last good one is what the next is laid over, and under.
  static ReaderMap before;
  if (before.nr_pfns()) {
    check_over(map, before);
    check_over(before, map);
  }
  before = map;
  return 0;
}
