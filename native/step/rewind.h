// A domain on its way back to what an image holds of it: which of its pages differ, what is to be
// in them, and the writing of those alone. Most is found out while the guest runs: a page that was
// compared and found the same, and that the host's log does not name since, is still the same.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "host/host.h"
#include "image/image_reader.h"
#include "pfn/canonicalise.h"
#include "step/pending_set.h"
#include "step/pieces.h"

namespace dormouse::step {

struct TableEntry {
  uint64_t pfn;
  int level;
};

// What is to be done to a domain besides the content of its pages.
struct RewindPlan {
  std::vector<Piece> gained, lost;         // frames that come and go
  std::vector<uint64_t> tables, unpinned;  // tables that are written to, pins that go
  std::vector<TableEntry> pins;            // pins that come
};

struct RewindCounts {
  uint64_t put = 0, same = 0;  // pages that were written to, and that were the same after all
};

class Rewind {
 public:
  static constexpr uint64_t kNone = ~0ull;
  // `leaves`: where the image has the guest's own p2m, in order. Unless frames stay, it is not
  // taken from the image: it follows from the frames. `start_info`: put back whatever is in it;
  // kNone: there is none.
  Rewind(std::shared_ptr<image::ImageReader> reader, std::vector<uint64_t> leaves,
         uint64_t start_info);
  // Before anything else. The image is of a domain that has the same frames: HOST_LACKS from plan()
  // where the p2m says otherwise. `alone` are pages that stay as they are.
  void keep_frames(std::vector<uint64_t> alone);
  ~Rewind();
  Rewind(const Rewind&) = delete;
  Rewind& operator=(const Rewind&) = delete;
  // Room for the content of so many pages, taken as it is used. NO_MEMORY.
  bool allocate(uint64_t max_kept, Fault* fault);
  uint64_t nr_pfns() const { return wanted_.size(); }
  const image::ImageReader& reader() const { return *reader_; }

  // Looks at the type and the frame of every page: those that differ, or moved since the last look,
  // are candidates. The first look comes before any compare().
  bool look(host::DomainMemory& memory, Fault* fault);
  // Takes every page for one that may differ, if what it is to hold is kept of all of them: nothing
  // need be compared before they are written.
  bool suspect_all();
  // Adds a host's dirty log.
  void merge(const uint8_t* bitmap) { candidates_.merge(0, nr_pfns(), bitmap); }
  // Compares units [first, first + count) of the image with the domain as it is; pages that differ
  // become candidates, and what they are to hold is kept. Checks every chunk that it reads, and
  // that the tables in it lead to pages with frames. IMAGE_DAMAGED and the reader's.
  bool compare(host::DomainMemory& memory, uint32_t lane, uint32_t first, uint32_t count,
               uint64_t* differing, Fault* fault);
  // Chunks with candidates whose content is not kept, as pieces.
  std::vector<Piece> missing() const;
  // Keeps the content of the candidates in these chunks as far as there is room.
  bool keep(uint32_t lane, uint32_t first, uint32_t count, Fault* fault);
  uint64_t candidates() const { return candidates_.count(); }

  // Of a domain that stands still. `whole`: nothing counts as mapped or pinned any more.
  bool plan(host::DomainMemory& memory, bool whole, RewindPlan* plan, Fault* fault);
  // Once the frames are as planned: writes every candidate that is kept and differs.
  bool write(host::DomainMemory& memory, unsigned threads, RewindCounts* counts, Fault* fault);
  // The same for the candidates in these chunks that are not kept.
  bool place(host::DomainMemory& memory, uint32_t lane, uint32_t first, uint32_t count,
             RewindCounts* counts, Fault* fault);

 private:
  static constexpr uint32_t kNotKept = ~0u;
  struct Scratch;
  static Scratch& scratch();

  uint8_t wanted_class(uint64_t pfn) const { return wanted_[pfn] & 15; }
  uint8_t wanted_type(uint64_t pfn) const { return wanted_[pfn] >> 4; }
  bool wants_frame(uint64_t pfn) const;
  bool fits(uint64_t pfn, uint64_t entry) const;
  bool has(uint64_t pfn) const;
  bool check_table(const host::FrameMaps& maps, uint64_t pfn, const uint8_t* body,
                   Fault* fault) const;
  void add_leaf_of(uint64_t pfn);
  bool check_frames_stay(host::DomainMemory& memory, Fault* fault) const;
  void keep_page(uint64_t pfn, const uint8_t* body);
  bool compare_chunk(host::DomainMemory& memory, uint32_t lane, uint32_t chunk, uint64_t* differing,
                     Fault* fault);
  bool compare_blanks(host::DomainMemory& memory, const image::BlankPages& blanks,
                      uint64_t* differing, Fault* fault);
  bool write_range(host::DomainMemory& memory, uint64_t first, uint64_t end, RewindCounts* counts,
                   Fault* fault);
  bool write_page(host::DomainMemory& memory, uint64_t pfn, const uint8_t* body,
                  RewindCounts* counts, Fault* fault);
  bool put_if_other(host::DomainMemory& memory, uint64_t pfn, uint64_t entry, const uint8_t* page,
                    RewindCounts* counts, Fault* fault);

  const std::shared_ptr<image::ImageReader> reader_;
  const uint64_t start_info_;
  const std::vector<uint64_t> leaves_;
  std::unordered_map<uint64_t, uint64_t> leaf_at_;  // by pfn: which leaf, if they are made anew
  // Where frames stay: the leaves of the image, by pfn, as they were; empty until they were seen.
  std::unordered_map<uint64_t, std::vector<uint8_t>> leaf_bodies_;
  std::vector<uint8_t> wanted_;  // class, type << 4
  std::vector<uint64_t> seen_;   // entries as of the last look
  std::vector<uint32_t> kept_at_;
  PendingSet candidates_;
  bool looked_ = false;
  bool frames_stay_ = false;
  pfn::Localise localise_ = pfn::localise;
  std::vector<uint64_t> alone_;
  bool keep_all_ = false;  // there is room for all of the image
  uint8_t* kept_ = nullptr;
  uint64_t max_kept_ = 0;
  std::atomic<uint64_t> next_kept_{0};
};

}  // namespace dormouse::step
