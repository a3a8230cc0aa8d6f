// A lease's lock and journal as the watcher reads them: what is understood says the same when it is
// written again, as striking a line does.
#include "host/xen/watcher/journal.h"

#include "fuzz/input.h"

namespace {

using namespace dormouse::xen;
using dormouse::fuzz::require;

std::string coded(const std::string& path) {
  std::string out;
  for (const char c : path) out += c == '%' ? "%25" : c == '\n' ? "%0A" : std::string(1, c);
  return out;
}

bool same(const LeaseOwner& a, const LeaseOwner& b) {
  return a.pid == b.pid && a.start_time == b.start_time;
}

void check_journal(const Journal& journal, const std::string& text) {
  std::string again;
  for (const std::string& line : journal.lines) {
    require(line.find('\n') == line.npos, "a line holds a line end");
    again += line + "\n";
  }
  require(again == text || again == text + "\n", "other lines than were read");
  Journal twice;
  require(parse_journal(again, &twice), "what was written again is not understood");
  require(twice.log_dirty == journal.log_dirty && twice.pause == journal.pause &&
              twice.pause_over == journal.pause_over && twice.destroy == journal.destroy &&
              twice.build == journal.build && twice.suspended == journal.suspended &&
              twice.suspend == journal.suspend && twice.was == journal.was &&
              same(twice.builder, journal.builder) && same(twice.monitor, journal.monitor) &&
              twice.saved.path == journal.saved.path,
          "it says something else when it is read again");
  const SavedImage& saved = journal.saved;
  if (saved.path.empty()) return;
  require(saved.path[0] == '/', "a path that is not whole decides");
  const std::string line = (saved.then_pause ? "saved pause " : "saved destroy ") + saved.image_id +
                           " " + coded(saved.path);
  Journal from_line;
  require(parse_journal(line, &from_line), "an image's line is not understood");
  require(from_line.saved.path == saved.path && from_line.saved.image_id == saved.image_id &&
              from_line.saved.then_pause == saved.then_pause,
          "another image decides");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  const std::string text(reinterpret_cast<const char*>(data), bytes);
  Lock lock;
  if (parse_lock(text, &lock)) require(std::strlen(lock.uuid) <= 36, "a uuid without an end");
  Journal journal;
  if (parse_journal(text, &journal)) check_journal(journal, text);
  return 0;
}
