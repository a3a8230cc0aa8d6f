// The one Reader: an open image, the files its pages are in, and a buffer a lane. An increment's
// pages lie in its own file and in its ancestors': to those who read, it has one list of chunks,
// its own first, then those of ancestors that still count. A page that is a delta comes with the
// page that it rests on: chunks of deltas are gone through once, when the image is opened, and
// whoever then reads the chunk of such a page finds what the delta makes of it.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "codec/delta.h"
#include "fault.h"
#include "image/aligned_bytes.h"
#include "image/chunk.h"
#include "image/page_map.h"
#include "image/reader.h"
#include "pfn/page_scan.h"
#include "pfn/sha256.h"

namespace dormouse::image {

struct ByteSpan {
  const uint8_t* data;
  uint64_t size;
};

// One file with chunks.
struct SourceSetup {
  int fd;  // duplicated
  std::string name;
  uint64_t nr_pfns;
  bool newer;  // of a newer minor version
  uint64_t chunks_end;
  ByteSpan chunk_table;
  ByteSpan digests;      // empty: the file has none
  ByteSpan page_hashes;  // empty: the file has none, or they are of no interest
  // Of a file that may have deltas, which has page hashes: by how much older each file is that they
  // may rest on, less one, which of the reader's it is; 0: none.
  bool deltas = false;
  std::vector<uint32_t> bases = {};
};

// One page map.
struct LayerSetup {
  ByteSpan map;
  uint64_t n_runs;
  uint64_t nr_pfns;
  bool sparse;
  bool newer;
  std::vector<uint32_t> sources;  // by the runs' source number: which of the reader's
};

struct ReaderSetup {
  uint32_t lanes;
  std::vector<SourceSetup> sources;  // the image's own file first
  std::vector<LayerSetup> layers;    // the image's own map first, then what each lies on
};

class ImageReader final : public Reader {
 public:
  // Checks chunk tables and page maps. Null on a fault: IMAGE_DAMAGED, IMAGE_READ_FAILED,
  // NO_MEMORY.
  static std::shared_ptr<ImageReader> open(const ReaderSetup& setup, Fault* fault);
  ~ImageReader() override;

  uint64_t nr_pfns() const override { return map_.nr_pfns(); }
  uint32_t nr_chunks() const override { return uint32_t(places_.size()); }
  uint32_t lanes() const override { return uint32_t(lanes_.size()); }
  const std::vector<BlankPages>& blanks() const override { return blanks_; }
  bool check_chunk(uint32_t lane, uint32_t chunk, Fault* fault) override;
  bool read_chunk(uint32_t lane, uint32_t chunk, DecodedChunk* out, Fault* fault) override;
  bool is_current(uint32_t chunk, uint32_t slot, uint64_t pfn) const override;

  // Lists what deltas that count rest on, with a thread a lane, before chunks are read: chunks that
  // nobody sought join the list. Not for who reads single pages, or none.
  bool follow_deltas(Fault* fault);
  // Marks the chunks in which read_chunk() gives these pages, which are of one run of the map.
  void mark_chunks(uint64_t first, uint64_t count, std::vector<bool>* chunks) const;

  // The chunk that read_chunk() of this lane just read, if another image may have it as it is: most
  // of its pages count, none is beyond the pfns and nothing in it is of a newer version.
  bool whole_chunk(uint32_t lane, uint32_t chunk, const DecodedChunk& pages,
                   StoredChunk* out) const;

  // The content of one page that counts; zeroes where its class has no body. Uses lanes of
  // its own; one thread at a time.
  bool read_page(uint64_t pfn, uint8_t* out, Fault* fault);

  // Room for the hashes of pages whose file has none. NO_MEMORY.
  void prepare_hashes();
  // Whether there is room for, or there are, the hashes of all pages that count.
  bool has_hashes() const;
  // Fills them in for one chunk, where its file has none.
  bool hash_chunk(uint32_t lane, uint32_t chunk, Fault* fault) override;
  // Whether the file of a page that has a body holds the page's hash.
  bool hash_stored(const PlacedRun& run) const {
    return sources_[places_[run.chunk].source].hashes_stored;
  }
  // Of a page that counts: what its content hashes to; zero where it has none. Only once all chunks
  // have their hashes.
  pfn::Hash128 page_hash(const PlacedRun& run, uint64_t pfn) const;
  // Whether the page is there with the same class, type and content.
  bool holds(uint64_t desc, const uint8_t* body) const;

  const ReaderMap& map() const { return map_; }
  // Where a chunk is: number of the file, and of the chunk in it.
  struct Place {
    uint32_t source;
    uint32_t chunk;
  };
  const Place& place(uint32_t chunk) const { return places_[chunk]; }
  const ChunkEntry& entry(uint32_t chunk) const {
    return sources_[places_[chunk].source].chunks[places_[chunk].chunk];
  }
  // By source: whether chunks of it are in the list, or what deltas of such a file rest on.
  std::vector<bool> used_sources() const;

 private:
  struct Source {
    int fd = -1;
    std::string name;
    uint64_t nr_pfns;
    bool newer;
    std::vector<ChunkEntry> chunks;
    std::vector<pfn::Sha256> digests;
    std::vector<uint64_t> first_page;  // by chunk: index of its first page in page_hashes
    std::vector<pfn::Hash128> page_hashes;
    bool hashes_stored = false;
    bool deltas;
    std::vector<uint32_t> bases;
  };
  struct LaneBuffers {
    AlignedBytes stored, bodies;
    std::vector<uint64_t> descs;
    uint64_t loaded = ~0ull;         // place of the chunk in `stored`, checked
    uint64_t decoded_block = ~0ull;  // of that chunk, in `bodies`
    ChunkView view;
    bool matched = false;   // of read_page's lanes: its pages were compared with the map
    uint64_t last_use = 0;  // of these
  };
  struct Lane {
    LaneBuffers chunk;
    std::unique_ptr<codec::DeltaState> codec;
  };
  // A delta that counts, and where the page is that it rests on.
  struct Followed {
    Place base;
    uint32_t base_slot;
    uint32_t chunk, slot;  // its own
    uint32_t size;
    uint64_t offset;  // in its file
    uint64_t desc;
  };
  struct Range {
    uint32_t first = 0, count = 0;
  };
  static uint64_t key_of(const Place& where) { return uint64_t(where.source) << 32 | where.chunk; }

  ImageReader() = default;
  bool add_source(const SourceSetup& setup, Fault* fault);
  bool check_table(const Source& source, uint64_t chunks_end, Fault* fault) const;
  bool take_notes(const SourceSetup& setup, Source* source, Fault* fault) const;
  bool lay_maps(const ReaderSetup& setup, Fault* fault);
  void list_chunks();
  void list_blanks();
  LaneBuffers& page_lane(const Place& where);
  bool allocate(LaneBuffers& lane, Fault* fault);
  bool load(LaneBuffers& lane, uint32_t chunk, Fault* fault);
  // Whichever chunk; a fault does not say which.
  bool load_place(LaneBuffers& lane, const Place& where, Fault* fault);
  // One page of a chunk of deltas that is loaded.
  bool read_delta(LaneBuffers& lane, uint32_t chunk, uint32_t slot, uint8_t* out, Fault* fault);
  // Of a chunk of deltas that were not followed.
  bool nothing_counts(uint32_t chunk, Fault* fault) const;
  // Whether the page map leads there.
  bool is_sought(uint32_t chunk, uint32_t slot, uint64_t pfn) const;
  bool holds_deltas(uint32_t chunk) const {
    return !bases_of_.empty() && !bases_of_[chunk].empty();
  }
  Range resting_on(uint32_t chunk) const { return rest_on_.empty() ? Range() : rest_on_[chunk]; }
  bool find_deltas(uint32_t lane, uint32_t chunk, std::vector<Followed>* found, Fault* fault);
  bool find_all_deltas(std::vector<Followed>* found, Fault* fault);
  bool list_bases(Fault* fault);
  bool base_place(uint32_t chunk, const DeltaBase& base, uint64_t pfn, Place* where,
                  Fault* fault) const;
  bool apply_deltas(Lane& lane, uint32_t chunk, Fault* fault);
  // Of the page at `page`, which a delta of that descriptor rests on, what the delta makes of it.
  bool make_page(codec::DeltaState& codec, const Followed& delta, const uint8_t* bytes,
                 uint8_t* page, Fault* fault);
  bool read_base(LaneBuffers& lane, const Followed& delta, uint8_t* out, Fault* fault);
  bool bad_base(const Followed& delta, const Fault& inner, Fault* fault) const;
  // For a fault in a chunk that they rest on.
  std::string resting_pfns(uint32_t chunk, bool beside_others, Fault* fault) const;
  bool bad_delta(uint32_t chunk, uint64_t pfn, const char* what, Fault* fault) const;
  bool decode(LaneBuffers& lane, uint32_t block, Fault* fault);
  // All of the chunk, or the blocks in which pages count.
  bool decode_blocks(LaneBuffers& lane, uint32_t chunk, bool all, Fault* fault);
  bool counts_in(const LaneBuffers& lane, uint32_t chunk, uint32_t block) const;
  // Whether whole_chunk() may give it: all of its pages are wanted then.
  bool may_go_whole(uint32_t chunk) const;
  bool read_span(LaneBuffers& lane, const Source& source, const ChunkEntry& entry, Fault* fault);
  static bool read_at(const Source& source, uint64_t offset, uint64_t bytes, uint8_t* out,
                      Fault* fault);
  bool check_pages(const LaneBuffers& lane, uint32_t chunk, Fault* fault) const;
  // Of a digest that differs the fault says nothing.
  static bool has_digest(const uint8_t* span, uint64_t bytes, const pfn::Sha256& digest,
                         Fault* fault);
  bool damaged(uint32_t chunk, const std::string& what, Fault* fault) const;
  bool refused(uint32_t chunk, const Fault& inner, Fault* fault) const;

  std::vector<Source> sources_;
  std::vector<Place> places_;
  std::vector<uint32_t> current_;  // by chunk: how many of its pages the page map leads to
  std::vector<BlankPages> blanks_;
  ReaderMap map_;
  // By what they rest on; and by chunk: which of them rest on it, and of a chunk of deltas, by
  // slot, in which chunk of the list the page is that each rests on.
  std::vector<Followed> followed_;
  std::vector<Range> rest_on_;
  std::vector<std::vector<uint32_t>> bases_of_;
  std::vector<Lane> lanes_;
  // read_page's: the chunks it read last.
  static constexpr size_t kPageLanes = 8;
  std::vector<LaneBuffers> page_lanes_;
  uint64_t page_uses_ = 0;
  std::unique_ptr<codec::DeltaState> page_codec_;
};

}  // namespace dormouse::image
