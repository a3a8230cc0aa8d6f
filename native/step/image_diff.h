// What differs between two images of a domain, page by page: types and content, however each file
// holds them. By the images' pages and runs, not by their pfns.
#pragma once
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "image/image_reader.h"
#include "step/pieces.h"

namespace dormouse::step {

enum DiffSide : uint8_t { kFrom = 0, kTo = 1 };

// Pages that differ, and were of one class and are of the other, by ascending pfn.
struct ClassDiff {
  uint8_t from, to;
  std::vector<Piece> runs;
};

class ImageDiff {
 public:
  // `same_files`: for each file of `from`, which of `to`'s it is; any other number for none. A page
  // that lies in one slot of one file for both is the same, and is not read. A pfn that one of them
  // does not have is without a frame there.
  ImageDiff(std::shared_ptr<image::ImageReader> from, std::shared_ptr<image::ImageReader> to,
            const std::vector<uint32_t>& same_files);
  const image::ImageReader& reader(DiffSide side) const { return *readers_[side]; }

  // Bytes [first, end) of a page count as zeroes: two equal guests may differ in them. Comes before
  // any seek().
  void blank(DiffSide side, uint64_t pfn, uint32_t first, uint32_t end);
  // First for `from`, then for `to`: takes the hashes that its files hold, and says which chunks
  // have pages that are to be looked at all the same, as pieces of at most `most`; then look()s.
  std::vector<Piece> seek(DiffSide side, uint64_t most);
  bool look(DiffSide side, uint32_t lane, uint32_t first, uint32_t count, Fault* fault);
  // Once all was looked at.
  std::vector<ClassDiff> differing() const;

 private:
  // Pages in a row that differ for certain, or whose content tells.
  struct Segment {
    uint64_t first, end;
    uint8_t classes[2];
    uint64_t at;  // of the first one in hashes_; kCertain: they differ
  };
  static constexpr uint64_t kCertain = ~0ull;
  struct Part;

  Part part_at(DiffSide side, uint64_t pfn, size_t* run) const;
  bool same_place(const Part& from, const Part& to, uint64_t pfn,
                  const std::vector<uint32_t>& same_files) const;
  void add(uint64_t first, uint64_t end, const Part& from, const Part& to, bool same_place);
  const Segment* find(uint64_t pfn) const;
  void note(DiffSide side, const Segment& segment, uint64_t pfn, const pfn::Hash128& hash);
  bool take_stored(DiffSide side, const Segment& segment, const image::PlacedRun& run);
  bool differs(const Segment& segment, uint64_t pfn) const;
  pfn::Hash128 hash_of(DiffSide side, uint64_t pfn, const uint8_t* body) const;

  std::shared_ptr<image::ImageReader> readers_[2];
  std::vector<Segment> segments_;
  uint64_t unsure_ = 0;               // pages whose content tells
  std::vector<pfn::Hash128> hashes_;  // as `from` has them
  std::vector<uint8_t> differs_;      // whether `to` has another one; a byte, for threads
  std::unordered_map<uint64_t, std::vector<std::pair<uint32_t, uint32_t>>> blanks_[2];
};

}  // namespace dormouse::step
