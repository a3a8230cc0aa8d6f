// KeptMemory over a translated domain whose frames come and go at every moment at which it looks,
// as a guest under a balloon has them: whatever it was shown while the domain ran, what it reads of
// the domain that stands still is what is there. Arguments: first seed, seeds. Prints the first
// seed that shows another page, and ends with 1.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <set>

#include "host/kept_memory.h"

using namespace dormouse;
using namespace dormouse::host;

namespace {

constexpr uint64_t kNrPfns = 12288;

struct World {
  explicit World(uint64_t seed) : random(seed) {}
  std::mt19937_64 random;
  std::map<uint64_t, uint64_t> p2m;  // pfn to frame
  std::map<uint64_t, int> held;      // a frame that is mapped is not freed
  std::set<uint64_t> log;
  uint64_t next_frame = 1;
  bool running = true;
  unsigned busy = 0;      // of 16 looks, at how many something comes or goes
  uint64_t fails_in = 0;  // which call from here on fails, once; 0: none

  uint64_t below(uint64_t n) { return random() % n; }
  // Of each 4096 pfns some at the start, and a stretch that is empty at first.
  uint64_t any_pfn() { return below(3) * 4096 + (below(8) == 0 ? 2048 : 0) + below(48); }
  void come(uint64_t pfn) {
    if (p2m.emplace(pfn, next_frame).second) ++next_frame;
    log.insert(pfn);
  }
  void go(uint64_t pfn) {
    if (p2m.erase(pfn) > 0) log.insert(pfn);
  }
  uint64_t total() const {
    std::set<uint64_t> frames;
    for (const auto& [pfn, frame] : p2m) frames.insert(frame);
    for (const auto& [frame, count] : held)
      if (count > 0) frames.insert(frame);
    return frames.size();
  }
  bool fails(Fault* fault) {
    return fails_in > 0 && --fails_in == 0 &&
           !fault->raise("GUEST_MEMORY_UNREADABLE", "as the test wants it");
  }
  void look() {
    if (!running || below(16) >= busy) return;
    for (uint64_t n = below(3) + 1; n > 0; --n) {
      const uint64_t pfn = any_pfn(), other = any_pfn();
      switch (below(4)) {
        case 0:
          go(pfn);
          come(pfn);
          break;
        case 1:
          go(pfn);
          come(other);
          break;
        case 2:
          come(pfn);
          break;
        default:
          go(pfn);
      }
    }
  }
};

class Pages : public Mapping {
 public:
  Pages(World* world, uint32_t n) : world_(world), bytes_(static_cast<uint8_t*>(calloc(n, 4096))) {}
  ~Pages() override {
    for (const uint64_t frame : frames_) --world_->held[frame];
    free(bytes_);
  }
  void hold(uint32_t index, uint64_t frame) {
    std::memcpy(bytes_ + index * 4096ull, &frame, 8);
    frames_.push_back(frame);
    ++world_->held[frame];
  }
  const uint8_t* data() const override { return bytes_; }

 private:
  World* world_;
  uint8_t* bytes_;
  std::vector<uint64_t> frames_;
};

class Source : public FrameSource {
 public:
  explicit Source(World* world) : world_(world) {}
  bool translated() const override { return true; }
  bool size(uint64_t* total, uint64_t* nr_pfns, Fault*) override {
    world_->look();
    *total = world_->total();
    *nr_pfns = kNrPfns;
    world_->look();
    return true;
  }
  bool types(const uint64_t* frames, uint32_t n, uint8_t* out, Fault* fault) override {
    if (world_->fails(fault)) return false;
    world_->look();
    for (uint32_t i = 0; i < n; ++i) out[i] = world_->p2m.count(frames[i]) ? kNotab : kXtab;
    world_->look();
    return true;
  }
  std::unique_ptr<Mapping> map(const uint64_t* frames, uint32_t n, int* errors,
                               Fault* fault) override {
    if (world_->fails(fault)) return nullptr;
    world_->look();
    auto pages = std::make_unique<Pages>(world_, n);
    for (uint32_t i = 0; i < n; ++i) {
      const auto found = world_->p2m.find(frames[i]);
      errors[i] = found == world_->p2m.end() ? 2 : 0;
      if (errors[i] == 0) pages->hold(i, found->second);
    }
    world_->look();
    return pages;
  }
  uint64_t p2m_frame(uint64_t) const override { return kNoMfn; }
  const std::vector<uint64_t>& p2m_leaves() const override { return none_; }
  bool refresh_p2m(bool*, Fault*) override { return true; }
  const uint64_t* m2p() const override { return nullptr; }
  uint64_t nr_mfns() const override { return 0; }

 private:
  World* world_;
  std::vector<uint64_t> none_;
};

// 0 where there is no page.
using Image = std::map<uint64_t, uint64_t>;

void read_page(KeptMemory* memory, uint64_t pfn, Image* image) {
  Fault fault;
  uint64_t entry = 0, page[512] = {};
  memory->query(pfn, 1, &entry, &fault);
  image->erase(pfn);
  if (!has_body(type_of(entry))) return;
  if (memory->copy_out(&pfn, &entry, 1, reinterpret_cast<uint8_t*>(page), &fault))
    (*image)[pfn] = page[0];
}

void read_all(KeptMemory* memory, Image* image) {
  image->clear();
  for (uint64_t pfn = 0; pfn < kNrPfns; ++pfn)
    if (pfn % 4096 < 48 || (pfn % 4096 >= 2048 && pfn % 4096 < 2096)) read_page(memory, pfn, image);
}

std::set<uint64_t> take_log(World* world, KeptMemory* memory) {
  std::set<uint64_t> taken;
  taken.swap(world->log);
  std::vector<uint8_t> bitmap(kNrPfns / 8);
  for (const uint64_t pfn : taken) bitmap[pfn / 8] |= uint8_t(1u << pfn % 8);
  Fault fault;
  memory->follow_log(bitmap.data(), kNrPfns, &fault);
  return taken;
}

// What is read of the domain once it stands still, by a log or by comparing everything again.
bool round(World* world, KeptMemory* memory, bool logged) {
  Image image;
  Fault fault;
  world->running = true;
  if (!memory->refresh(logged, &fault)) return false;
  if (logged) {
    take_log(world, memory);
    read_all(memory, &image);
    for (uint64_t passes = world->below(3); passes > 0; --passes)
      for (const uint64_t pfn : take_log(world, memory))
        if (world->below(8) > 0)
          read_page(memory, pfn, &image);
        else
          world->log.insert(pfn);
  }
  world->running = false;
  if (!memory->catch_up(logged, &fault)) return false;
  if (!logged)
    read_all(memory, &image);
  else
    for (const uint64_t pfn : take_log(world, memory)) read_page(memory, pfn, &image);
  return image == world->p2m;
}

bool holds(uint64_t seed) {
  World world(seed);
  world.busy = unsigned(world.below(5));
  for (uint64_t pfn = 0; pfn < kNrPfns; ++pfn)
    if (pfn % 4096 < 40 && pfn < 3 * 4096) world.come(pfn);
  // Of a page that was given back: somebody else still has it.
  if (world.below(4) == 0) world.held[world.next_frame++] = 1;
  Fault fault;
  KeptMemory memory(std::make_unique<Source>(&world));
  if (!memory.map_all(&fault)) return false;
  const bool logged = world.below(2) == 0;
  for (int i = 0; i < 3; ++i)
    if (!round(&world, &memory, logged)) return false;
  return true;
}

// What could not be mapped anew is mapped when it is read, and never read where nothing is mapped.
bool holds_after_failing(uint64_t seed) {
  World world(seed);
  for (uint64_t pfn = 0; pfn < kNrPfns; ++pfn)
    if (pfn % 4096 < 40) world.come(pfn);
  KeptMemory memory(std::make_unique<Source>(&world));
  Fault fault;
  if (!memory.map_all(&fault)) return false;
  world.come(45);
  world.fails_in = 1 + world.below(15);  // 12 questions and 3 mappings
  if (memory.catch_up(false, &fault)) return false;
  world.running = false;
  Image image;
  read_all(&memory, &image);
  return image == world.p2m;
}

// A domain with a p2m of its own, two leaves of it, which it changes as it likes. What a leaf's own
// pfn is may not be told.
class PvSource : public FrameSource {
 public:
  explicit PvSource(uint64_t seed) : random_(seed), m2p_(4096, ~0ull), list_(1024, kNoMfn) {
    for (uint64_t pfn = 0; pfn < 900; ++pfn) set(pfn, 3000 - pfn);
    leaves_ = {list_[10], list_[11]};
    if (random_() % 2 == 0) m2p_[leaves_[1]] = ~0ull;
  }
  bool translated() const override { return false; }
  bool size(uint64_t*, uint64_t*, Fault*) override { return false; }
  bool types(const uint64_t* frames, uint32_t n, uint8_t* out, Fault*) override {
    for (uint32_t i = 0; i < n; ++i) out[i] = frames[i] == kNoMfn ? kXtab : kNotab;
    return true;
  }
  std::unique_ptr<Mapping> map(const uint64_t*, uint32_t n, int* errors, Fault*) override {
    std::fill(errors, errors + n, 0);
    return std::make_unique<Pages>(nullptr, n);
  }
  uint64_t p2m_size() const override { return list_.size(); }
  uint64_t p2m_frame(uint64_t pfn) const override { return list_[pfn]; }
  const std::vector<uint64_t>& p2m_leaves() const override { return leaves_; }
  bool refresh_p2m(bool* moved, Fault*) override { return *moved = false, true; }
  const uint64_t* m2p() const override { return m2p_.data(); }
  uint64_t nr_mfns() const override { return m2p_.size(); }

  // Gives pages back, or takes others for them; the log names the leaf that says so.
  void change(uint8_t* log) {
    for (int i = 0; i < 5; ++i) {
      const uint64_t pfn = 16 + random_() % 1000, leaf = 10 + pfn / 512;
      set(pfn, random_() % 2 == 0 ? kNoMfn : 3001 + next_++);
      log[leaf / 8] |= uint8_t(1u << leaf % 8);
    }
  }
  bool is_list(const uint64_t* p2m) const { return std::equal(list_.begin(), list_.end(), p2m); }

 private:
  void set(uint64_t pfn, uint64_t mfn) {
    if (list_[pfn] != kNoMfn) m2p_[list_[pfn]] = ~0ull;
    if (mfn != kNoMfn) m2p_[mfn] = pfn;
    list_[pfn] = mfn;
  }
  std::mt19937_64 random_;
  uint64_t next_ = 0;
  std::vector<uint64_t> m2p_, list_, leaves_;
};

// Page tables are judged by the whole list: it is the guest's own once that stands still.
bool holds_pv(uint64_t seed) {
  auto* source = new PvSource(seed);
  KeptMemory memory{std::unique_ptr<FrameSource>(source)};
  Fault fault;
  if (!memory.map_all(&fault)) return false;
  const bool logged = seed % 2 == 0;
  for (int i = 0; i < 20; ++i) {
    uint8_t log[128] = {};
    source->change(log);
    if (!memory.catch_up(logged, &fault)) return false;
    if (logged && !memory.follow_log(log, 1024, &fault)) return false;
    if (!source->is_list(memory.maps().p2m)) return false;
  }
  return true;
}

}  // namespace

int main(int, char** argv) {
  const uint64_t first = strtoull(argv[1], nullptr, 10), seeds = strtoull(argv[2], nullptr, 10);
  for (uint64_t seed = first; seed < first + seeds; ++seed) {
    if (holds(seed) && holds_pv(seed) && holds_after_failing(seed)) continue;
    printf("seed %llu reads another page\n", static_cast<unsigned long long>(seed));
    return 1;
  }
  return 0;
}
