// The calls of a pause: their order, what the work is given, and that a fault of any of them leaves
// no domain stopped.
#include <cstdio>
#include <new>
#include <string>

#include "host/xen/stopped_capture.h"

using namespace dormouse;

namespace {

int failures = 0;

void check(bool holds, const std::string& what) {
  if (holds) return;
  std::printf("not so: %s\n", what.c_str());
  ++failures;
}

struct Scene {
  std::string calls;
  char fails = 0;       // the call that does
  bool throws = false;  // and how
  bool stopped = false;
  bool stuck = false;

  bool call(char which, Fault* fault) {
    calls += which;
    if (which != fails) return true;
    if (throws) throw std::bad_alloc();
    return fault->raise("INTERNAL", std::string(1, which));
  }
};

class Domain : public xen::Stoppable {
 public:
  explicit Domain(Scene* scene) : scene_(*scene) {}
  bool prepare(bool logged, Fault* fault) override {
    return scene_.call(logged ? 'P' : 'p', fault);
  }
  bool stop(Fault* fault) override { return scene_.stopped = scene_.call('s', fault); }
  bool read_log(uint64_t nr_pfns, std::vector<uint8_t>* log, Fault* fault) override {
    log->assign((nr_pfns + 7) / 8, 0xa5);
    return scene_.call('l', fault);
  }
  bool read_registers(Fault* fault) override { return scene_.call('r', fault); }
  bool catch_up(bool logged, Fault* fault) override {
    return scene_.call(logged ? 'U' : 'u', fault);
  }
  bool captured(Fault* fault) override { return scene_.call('c', fault); }
  bool go_on(Fault* fault) override {
    if (!scene_.call('g', fault)) return false;
    if (scene_.stuck) return fault->raise("INTERNAL", "stuck");
    scene_.stopped = false;
    return true;
  }

 private:
  Scene& scene_;
};

class Work : public host::StoppedWork {
 public:
  Work(Scene* scene, uint64_t nr_pfns, bool fits)
      : scene_(*scene), nr_pfns_(nr_pfns), fits_(fits) {}
  uint64_t logged_pfns() const override { return nr_pfns_; }
  bool run(uint8_t* log, bool* done, Fault* fault) override {
    check((log != nullptr) == (nr_pfns_ != 0), "the work gets the log where it wants one");
    check(!log || (log[0] == 0xa5 && log[(nr_pfns_ - 1) / 8] == 0xa5), "all of the log");
    check(scene_.stopped, "the domain stands");
    *done = fits_;
    return scene_.call('w', fault);
  }
  uint64_t copying_ns() const override { return 1'000'000'000'000; }

 private:
  Scene& scene_;
  uint64_t nr_pfns_;
  bool fits_;
};

struct Seen : Scene {
  bool good = false;
  Fault fault;
  xen::StopTimes times;
};

void run(Seen* seen, uint64_t nr_pfns, bool fits) {
  Domain domain(seen);
  Work work(seen, nr_pfns, fits);
  seen->good = xen::capture_stopped(domain, work, &seen->times, &seen->fault);
}

Seen capture(uint64_t nr_pfns, bool fits, char fails = 0, bool throws = false) {
  Seen seen;
  seen.fails = fails;
  seen.throws = throws;
  run(&seen, nr_pfns, fits);
  return seen;
}

void fail_each() {
  const std::string order = "PslrUwcg";
  for (size_t at = 0; at + 1 < order.size(); ++at)
    for (const bool throws : {false, true}) {
      if (throws && at < 2) continue;  // these have nothing to take back
      const Seen seen = capture(100, true, order[at], throws);
      const std::string what = std::string("a fault of ") + order[at] + ": " + seen.calls;
      check(!seen.good && seen.fault && !seen.stopped, what);
      check(seen.calls == order.substr(0, at + 1) + (at < 2 ? "" : "g"), what);
      check(std::string(seen.fault.code) == (throws ? "NO_MEMORY" : "INTERNAL"), what);
    }
  Seen both;
  both.fails = 'w';
  both.stuck = true;
  run(&both, 100, true);
  check(!both.good && both.fault.text == "w" && both.stopped, "the first fault is the one to tell");
  const Seen stuck = capture(100, true, 'g');
  check(!stuck.good && stuck.fault.text == "g" && stuck.stopped,
        "one that cannot go on is told of");
}

}  // namespace

int main() {
  const Seen logged = capture(100, true), content = capture(0, true), much = capture(100, false);
  check(logged.good && logged.calls == "PslrUwcg" && !logged.stopped,
        "with a log: " + logged.calls);
  check(content.good && content.calls == "psruwcg", "without one: " + content.calls);
  check(much.good && much.calls == "PslrUwg", "too much for a pause: " + much.calls);
  check(logged.times.find_ns < 1'000'000'000, "no part is longer than the pause");
  fail_each();
  return failures == 0 ? 0 : 1;
}
