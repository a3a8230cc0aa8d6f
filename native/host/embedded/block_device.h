// A block device of a domain as its backend has it: a thread that takes requests from a ring in
// guest memory and works on a file. Guest memory it reaches through grants only.
//
// Requests are carried out in any order and answered in the order of the ring: so what lies between
// the last answer and the last request is what was not answered, and a backend that is attached to
// a ring as it once was does just that again.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "fault.h"
#include "host/embedded/blkif.h"

namespace dormouse::embedded {

class Domain;

struct DiskOptions {
  std::string name, path;
  bool writable = false;
  uint32_t port = 0;  // the event channel, both ends of it
};

// How badly it behaves: as backends on a loaded machine do, or worse.
struct BackendBehaviour {
  enum Holds : uint8_t {
    kNothing,
    kRequests,  // takes none
    kAnswers,   // carries them out, and does not answer
  };
  Holds holds = kNothing;
  uint64_t delay_us = 0;  // between carrying out and answering
  uint64_t seed = 0;      // of the order in which they are carried out; 0 = that of the ring
  bool never_closes = false;
};

class BlockDevice {
 public:
  BlockDevice(Domain& domain, DiskOptions options)
      : domain_(domain), options_(std::move(options)) {}
  ~BlockDevice() { end(); }

  // Opens the file, where it is not open. CONFIG_INVALID, DOMAIN_WRONG_STATE where it is not of the
  // size that it had.
  bool open(Fault* fault);
  // A frontend came: its requests are served from the first that has no answer. The file is open.
  void attach(uint32_t ring_ref);
  // Asks to close, which is done once what was taken is answered: then it is attached no more.
  void ask_to_close();
  // Takes that back where it is not done yet.
  void keep_open();
  // Ends the thread, whatever it is at, and closes the file.
  void end();
  // The frontend's event.
  void kick();
  void behave(const BackendBehaviour& how);

  bool attached();
  XenbusState state();
  const DiskOptions& options() const { return options_; }
  uint64_t sectors() const { return sectors_; }

  // Held by a vCPU that works on the frontend's memory; no vCPU is ever stopped with it.
  std::mutex front_lock;

 private:
  struct Taken {
    BlkRequest request;
    int16_t status = kBlkError;
  };

  void serve();
  bool wait_for_work();
  bool wait_to_answer();
  bool take(std::vector<Taken>* taken);
  void carry_out_all(std::vector<Taken>* taken);
  int16_t carry_out(const BlkRequest& request);
  bool move_segment(const BlkRequest& request, uint32_t segment, uint64_t sector);
  bool answer(const std::vector<Taken>& taken);
  void notify_guest();
  void close_file();

  Domain& domain_;
  const DiskOptions options_;
  int fd_ = -1;
  uint64_t sectors_ = 0;
  uint64_t draws_ = 0;

  std::mutex lock_;  // guards what follows
  std::condition_variable changed_;
  bool attached_ = false, closing_ = false, ending_ = false, work_ = false;
  BackendBehaviour how_;
  uint32_t ring_ref_ = 0, req_cons_ = 0;  // the thread's own while there is one
  std::thread thread_;
};

}  // namespace dormouse::embedded
