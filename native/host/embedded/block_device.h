// A block device of a domain as its backend has it: it takes requests from a ring and works on a
// file.
//
// Requests are carried out in any order and answered in the order of the ring: so what lies between
// the last answer and the last request is what was not answered, and a backend that is attached to
// a ring as it once was does just that again.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "host/embedded/backend.h"
#include "host/embedded/blkif.h"

namespace dormouse::embedded {

struct DiskOptions {
  std::string name, path;
  bool writable = false;
  uint32_t port = 0;  // the event channel, both ends of it
};

class BlockDevice : public Backend {
 public:
  BlockDevice(Domain& domain, DiskOptions options)
      : Backend(domain, options.port, "dormouse-blkback"), options_(std::move(options)) {}
  ~BlockDevice() override { end(); }

  // Opens the file, where it is not open. CONFIG_INVALID, DOMAIN_WRONG_STATE where it is not of the
  // size that it had.
  bool open(Fault* fault);
  // A frontend came: its requests are served from the first that has no answer. The file is open.
  void attach(uint32_t ring_ref);

  const DiskOptions& options() const { return options_; }
  uint64_t sectors() const { return sectors_; }

 private:
  struct Taken {
    BlkRequest request;
    int16_t status = kBlkError;
  };

  bool serve_once() override;
  void let_go() override;
  bool take(std::vector<Taken>* taken);
  void carry_out_all(std::vector<Taken>* taken);
  int16_t carry_out(const BlkRequest& request);
  bool move_segment(const BlkRequest& request, uint32_t segment, uint64_t sector);
  bool answer(const std::vector<Taken>& taken);

  const DiskOptions options_;
  int fd_ = -1;
  uint64_t sectors_ = 0;
  uint32_t ring_ref_ = 0, req_cons_ = 0;  // the thread's own while there is one
};

}  // namespace dormouse::embedded
