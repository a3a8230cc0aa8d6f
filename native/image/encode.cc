#include "image/encode.h"

#include <algorithm>
#include <cstring>

namespace dormouse::image {
namespace {

uint16_t encode_runs(const PageRun& pages, ChunkRun* runs) {
  uint16_t n = 0;
  for (uint32_t i = 0; i < pages.n_pages; i++) {
    if (n != 0 && pages.descs[i] == runs[n - 1].desc + runs[n - 1].count)
      runs[n - 1].count++;
    else
      runs[n++] = {pages.descs[i], 1};
  }
  return n;
}

}  // namespace

bool check_pages(const PageRun& pages, uint64_t nr_pfns, Fault* fault) {
  uint64_t with_body = 0;
  for (uint32_t i = 0; i < pages.n_pages; i++) {
    const uint64_t d = pages.descs[i];
    const uint8_t page_class = desc_class(d);
    with_body += class_has_body(page_class);
    const bool fits =
        desc_pfn(d) < nr_pfns && (d >> 52 & 0xF) == 0 && class_fits_type(page_class, desc_type(d));
    if (fits) continue;
    fault->pfn = desc_pfn(d);
    return fault->raise("ACCOUNTING_MISMATCH", "pfn " + std::to_string(desc_pfn(d)) + " of class " +
                                                   std::to_string(page_class) + " and type " +
                                                   std::to_string(desc_type(d)) +
                                                   " cannot be in this image");
  }
  if (with_body == pages.n_bodies) return true;
  return fault->raise("ACCOUNTING_MISMATCH", std::to_string(pages.n_bodies) + " page bodies for " +
                                                 std::to_string(with_body) + " pages");
}

uint8_t* close_chunk(ChunkHeader* h, const uint32_t* lengths, const ChunkRun* runs, uint8_t* begin,
                     uint8_t* end) {
  const bool compressed =
      std::any_of(lengths, lengths + h->blocks, [](uint32_t n) { return !(n & kStoredFlag); });
  h->magic = kChunkMagic;
  h->kind = kChunkPages;
  h->codec = compressed ? kCodecLz4 : kCodecNone;
  h->header_size = sizeof *h;
  h->payload_size = uint32_t(end - begin - sizeof *h);
  std::memcpy(end, lengths, h->blocks * 4ull);
  end += h->blocks * 4ull;
  std::memcpy(end, runs, h->runs * sizeof(ChunkRun));
  end += h->runs * sizeof(ChunkRun);
  h->span = uint32_t(whole_pages(uint64_t(end - begin)));
  std::memcpy(begin, h, sizeof *h);
  return end;
}

uint32_t encode_chunk(BlockCoder& coder, const PageRun& pages, uint8_t* out) {
  uint32_t lengths[kMaxChunkBlocks];
  ChunkRun runs[kMaxChunkPages];
  ChunkHeader h = {};
  uint8_t* at = out + sizeof h;
  for (uint32_t done = 0; done < pages.n_bodies; done += kBlockPages) {
    const uint32_t n = std::min(kBlockPages, pages.n_bodies - done);
    at += coder.encode(pages.bodies + uint64_t(done) * kPageBytes, n, at, &lengths[h.blocks++]);
  }
  h.pages = uint16_t(pages.n_pages);
  h.bodies = uint16_t(pages.n_bodies);
  h.runs = encode_runs(pages, runs);
  return uint32_t(close_chunk(&h, lengths, runs, out, at) - out);
}

}  // namespace dormouse::image
