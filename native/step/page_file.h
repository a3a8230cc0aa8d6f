// Pages of an image at their places in a file of another kind: each at its pfn, or those with
// content one after the other. Pages of zeroes are not written: the file has holes there.
#pragma once
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "image/image_reader.h"
#include "image/output_file.h"

namespace dormouse::step {

struct PageFilePlan {
  uint64_t base;  // of the first page in the file; a multiple of the page's size
  bool packed;    // one after the other by pfn; else each at its pfn
  // Packed: a header of LiME's before each range of neighbouring pages.
  bool lime;
  // Where the guest has its own p2m, in order: it is written as if each pfn had the frame of that
  // number.
  std::vector<uint64_t> leaves;
};

class PageFile {
 public:
  PageFile(std::shared_ptr<image::ImageReader> reader, std::shared_ptr<image::OutputFile> file,
           const PageFilePlan& plan);
  const image::ImageReader& reader() const { return *reader_; }
  // Bytes that the pages take, holes and all.
  uint64_t bytes() const { return bytes_; }
  // LiME's headers, if it has them.
  bool put_headers(Fault* fault);
  // The pages in chunks [first, first + count), which are checked.
  bool put(uint32_t lane, uint32_t first, uint32_t count, Fault* fault);

 private:
  uint64_t place_of(uint64_t pfn) const;
  bool put_chunk(uint32_t lane, uint32_t chunk, Fault* fault);
  bool put_leaf(uint64_t pfn, uint64_t leaf, Fault* fault);

  const std::shared_ptr<image::ImageReader> reader_;
  const std::shared_ptr<image::OutputFile> file_;
  const uint64_t base_;
  struct Range {
    uint64_t at, first, end;  // of its header; its pfns
  };
  std::vector<Range> ranges_;     // of LiME
  std::vector<uint64_t> before_;  // packed: bytes before each run of the map
  uint64_t bytes_;
  std::unordered_map<uint64_t, uint64_t> leaf_at_;  // by pfn: which leaf
};

}  // namespace dormouse::step
